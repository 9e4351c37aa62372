"""A private PostgreSQL server for tests: a folder of its own, a unix socket for nobody else, gone with the fixture."""

import os
import pwd
import socket
import subprocess
from pathlib import Path

import pytest

from tests.contract.running import open_folder

START_SECONDS = 60
ATTEMPTS = 5
TAKEN = "Address already in use"
UNPRIVILEGED = "postgres"


class PostgresServer:
    """One server on a free loopback port; `url` is what SQLAlchemy's asyncpg dialect takes."""

    def __init__(self, folder: Path, binaries: Path) -> None:
        self._folder = folder
        self._binaries = binaries
        self.url = ""
        """Known once it is started."""

    @classmethod
    def start_or_skip(cls, folder: Path) -> "PostgresServer":
        """A running server, or a skipped test where none is installed."""
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
        if not found:
            pytest.skip("no PostgreSQL server is installed")
        if os.geteuid() == 0 and not _user_exists(UNPRIVILEGED):
            pytest.skip(f"PostgreSQL does not run as root and there is no user {UNPRIVILEGED}")
        server = cls(folder, found[-1])
        server.start()
        return server

    def start(self) -> None:
        """Make the cluster and return when it answers."""
        data = self._folder / "data"
        self._folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            open_folder(self._folder, UNPRIVILEGED)
        self._run("initdb", "-D", str(data), "-A", "trust", "-U", UNPRIVILEGED, "--no-sync")
        for attempt in range(ATTEMPTS):
            port = _free_port()
            options = f"-p {port} -h 127.0.0.1 -k {self._folder} -F"
            log = self._folder / f"log-{attempt}"
            start = ("-D", str(data), "-w", "-t", str(START_SECONDS), "-l", str(log), "-o", options, "start")
            if self._exit_status("pg_ctl", *start) == 0:
                self.url = f"postgresql+asyncpg://{UNPRIVILEGED}@127.0.0.1:{port}/postgres"
                return
            said = log.read_text(errors="replace")
            assert TAKEN in said, said[-2000:]  # else another program was faster
        raise AssertionError(f"{ATTEMPTS} free ports were taken by others")

    def stop(self) -> None:
        """End it without waiting for its clients."""
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-m", "immediate", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        status = self._exit_status(program, *arguments)
        assert status == 0, (self._folder / f"{program}.log").read_text(errors="replace")[-2000:]

    def _exit_status(self, program: str, *arguments: str) -> int:
        user = UNPRIVILEGED if os.geteuid() == 0 else None
        command = [str(self._binaries / program), *arguments]
        # Not captured: the server started by pg_ctl would hold the pipe open for ever.
        with (self._folder / f"{program}.log").open("ab") as log:
            done = subprocess.run(command, user=user, stdout=log, stderr=log, cwd="/", timeout=120, check=False)
        return done.returncode


def _user_exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
