"""One server for a whole test run: whoever needs it first starts it, the run's first process ends it."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sandyard.testing import READY
from sandyard.testing.client import Door

START_SECONDS = 300.0
"""The docker runtime may build its default image first."""
STOP_SECONDS = 60.0


class NoServer(RuntimeError):
    """The server did not get ready; the message has its last words."""


@dataclass(slots=True)
class TestRun:
    """The folder that the processes of one test run share."""

    __test__ = False

    folder: Path
    owner_pid: int
    options: Mapping[str, str] = field(default_factory=dict)
    """`runtime`, `isolation`, `network`."""

    @classmethod
    def begin(cls, options: Mapping[str, str]) -> "TestRun":
        """A run that this process owns."""
        return cls(Path(tempfile.mkdtemp(prefix="sandyard-tests-")), os.getpid(), options)

    def server(self, name: str = "shared") -> Door:
        """The server of that name, started if nobody has. Raises `NoServer`."""
        home = self.folder / name
        home.mkdir(exist_ok=True, mode=0o700)
        with (home / "starting").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the others wait here for the first
            if not (home / READY).exists():
                self._start(home)
        told = json.loads((home / READY).read_text(encoding="utf-8"))
        return Door(told["origin"], told["api_key"])

    def end(self) -> None:
        """End every server and remove what they kept; for the owner only."""
        for ready in self.folder.glob(f"*/{READY}"):
            _stop(json.loads(ready.read_text(encoding="utf-8"))["pid"])
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, home: Path) -> None:
        command = [sys.executable, "-m", "sandyard.testing.server", str(home), str(self.owner_pid)]
        for name, value in self.options.items():
            command += [f"--{name}", value]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("DAYTONA_")}
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(  # noqa: S603  our own interpreter
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while not (home / READY).exists():
            # It announces itself by a file, and no event for that is on every system.
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                words = (home / "log").read_text(errors="replace")[-2000:]
                raise NoServer(f"no Sandyard for these tests:\n{words}")
            time.sleep(0.005)


def _stop(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline and _lives(pid):
        time.sleep(0.01)  # it may be nobody's child here, so there is nothing to wait on


def _lives(pid: int) -> bool:
    try:
        done, _ = os.waitpid(pid, os.WNOHANG)
        return done == 0
    except ChildProcessError:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except (OSError, IndexError):
            return False
