"""A Sandyard of the tests' own: started as a user starts it, known by the two lines it prints, ended by SIGTERM."""

import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

START_SECONDS = 300  # the docker combination may build its default image first
STOP_SECONDS = 60
EXPORT = re.compile(r"^export (DAYTONA_API_URL|DAYTONA_API_KEY)=['\"]?([^'\"\s]+)['\"]?\s*$")


@dataclass(frozen=True, slots=True)
class Combination:
    """One way to run Sandyard: where state is, what carries hints, what holds sandboxes."""

    name: str
    runtime: str
    postgres: bool = False
    redis: bool = False
    isolation: str | None = None
    user: str | None = None
    """Run as this ordinary user when the tests run as root."""


COMBINATIONS = {
    each.name: each
    for each in (
        Combination("sqlite-memory-local", "local"),
        Combination("postgres-redis-docker", "docker", postgres=True, redis=True),
        Combination("sqlite-memory-docker", "docker"),
        Combination("postgres-redis-local", "local", postgres=True, redis=True),
        Combination("sqlite-redis-local", "local", redis=True),
        Combination("postgres-memory-local", "local", postgres=True),
        Combination("sqlite-memory-processes", "local", isolation="none"),
        Combination("sqlite-memory-local-user", "local", user="nobody"),
        Combination("sqlite-memory-processes-user", "local", isolation="none", user="nobody"),
    )
}
CONTROL_PLANES = {
    "sqlite": Combination("sqlite-memory-memory", "memory"),
    "postgres": Combination("postgres-memory-memory", "memory", postgres=True),
}
"""Without sandboxes that run anything: for thousands of requests to the API. See `memory_sandyard`."""
EVERY_RUN = ("sqlite-memory-local", "postgres-redis-docker")
"""The combinations of every CI run; `SANDYARD_TEST_COMBINATIONS` names others, separated by commas, or `all`."""


def chosen_combinations(environment: Mapping[str, str]) -> list[str]:
    """The names to run, in the table's order. Raises `KeyError` for a name that is not in the table."""
    asked = environment.get("SANDYARD_TEST_COMBINATIONS", "")
    if asked == "all":
        return list(COMBINATIONS)
    return [COMBINATIONS[name.strip()].name for name in asked.split(",") if name.strip()] or list(EVERY_RUN)


@dataclass(slots=True)
class Instance:
    """A running Sandyard and how to reach it."""

    combination: Combination
    process: subprocess.Popen[str]
    folder: Path
    api_url: str = ""
    api_key: str = ""
    said: list[str] = field(default_factory=list)
    """What it wrote to stdout, line by line."""

    @property
    def origin(self) -> str:
        """Scheme, host and port of everything it serves."""
        parts = urlsplit(self.api_url)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def host(self) -> str:
        """The host name in the URL it printed."""
        return urlsplit(self.api_url).hostname or ""

    @property
    def port(self) -> int:
        """The port it took."""
        return urlsplit(self.api_url).port or 80

    @property
    def log(self) -> str:
        """Everything it wrote to stderr so far."""
        return (self.folder / "stderr").read_text(errors="replace")

    def resident_mib(self) -> float:
        """Resident memory of the process itself, MiB."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"^VmRSS:\s+(\d+) kB", text, re.MULTILINE)
        assert found, "the process is gone"
        return int(found[1]) / 1024

    def stop(self) -> int:
        """Ask it to end and return its exit status. Raises `subprocess.TimeoutExpired` when it does not."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)


def start(
    combination: Combination, folder: Path, *extra: str, environment: Mapping[str, str] | None = None
) -> Instance:
    """Run `sandyard up` and return when it has printed its URL and key. Raises `RuntimeError` with its last words."""
    folder.mkdir(parents=True, exist_ok=True)
    if combination.runtime == "memory":
        command = [sys.executable, str(Path(__file__).with_name("memory_sandyard.py"))]
    else:
        command = [str(Path(sys.executable).with_name("sandyard")), "up", "--port", "0"]
        command += ["--runtime", combination.runtime]
        command += ["--isolation", combination.isolation] if combination.isolation else []
    command += ["--data-dir", str(folder / "data")]
    user = combination.user if os.geteuid() == 0 else None
    if user:
        open_folder(folder, user)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("DAYTONA_", "SANDYARD_"))}
    with (folder / "stderr").open("w") as stderr:
        process = subprocess.Popen(
            [*command, *extra],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=clean | ({"HOME": str(folder)} if user else {}) | dict(environment or {}),
            user=user,
            group=pwd.getpwnam(user).pw_gid if user else None,
            extra_groups=[] if user else None,
            start_new_session=True,  # Ctrl-C at pytest ends it by the fixture, in order
        )
    instance = Instance(combination, process, folder)
    ready = threading.Event()
    threading.Thread(target=_read, args=(instance, ready), daemon=True, name="sandyard-stdout").start()
    if not ready.wait(START_SECONDS) or not instance.api_key:
        process.kill()
        process.wait()
        raise RuntimeError(f"`sandyard up` did not get ready:\n{chr(10).join(instance.said)}\n{instance.log[-4000:]}")
    return instance


def open_folder(folder: Path, user: str) -> None:
    """Give a folder to a user, and let them reach it: pytest closes the ones above to all but its own user."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.chown(folder, user)
    for parent in folder.parents:
        mode = parent.stat().st_mode
        if not mode & 0o001:
            parent.chmod(mode | 0o011)


def _read(instance: Instance, ready: threading.Event) -> None:
    assert instance.process.stdout is not None
    with instance.process.stdout as lines:
        for line in lines:
            instance.said.append(line.rstrip("\n"))
            if found := EXPORT.match(line):
                if found[1] == "DAYTONA_API_URL":
                    instance.api_url = found[2]
                else:
                    instance.api_key = found[2]
            if instance.api_url and instance.api_key:
                ready.set()
    ready.set()  # the end of its output is an answer too
