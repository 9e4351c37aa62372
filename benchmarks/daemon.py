"""What the daemon costs every sandbox: its start and its memory, alone and as it is started in a sandbox."""

import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.figures import Figure, Row, at_most, interleaved
from benchmarks.memory import Memory, descendants, executable
from sandyard_daemon.client import DoorError, connect_door
from sandyard_daemon.wire import DOOR_HEADER
from sandyard_runner.daemon_bundle import Bundle, ensure_bundle

START_SECONDS = 10
LOOK_SECONDS = 0.001
SETTLE_SECONDS = 1


def measure(bench: Bench) -> Iterator[Row]:
    """From the bundle, as a plain process."""
    bundle = ensure_bundle(bench.new_folder())
    # Pages of a file that is not on the disk yet count as dirty in whoever maps them; a used bundle has none.
    os.sync()
    started, bare = interleaved(bench.rounds(15), lambda: _start(bench, bundle), lambda: _interpreter(bundle))
    yield Figure(
        "daemon, from spawn to its first answer",
        started,
        "ms",
        bare,
        "the bundle's interpreter doing nothing",
        at_most(120),
        "looked for every millisecond",
    )
    with _daemon(bench, bundle) as (process, door):
        _request(door, "POST", "/process/session", b'{"sessionId": "bench"}', 201)
        time.sleep(SETTLE_SECONDS)  # memory is what stays, not what a request needs for a moment
        alone = Memory.of(process.pid).private_dirty
        _request(door, "POST", "/process/session/bench/exec", b'{"command": "true"}', 200)
        time.sleep(SETTLE_SECONDS)
        helpers = [pid for pid in descendants(process.pid) if executable(pid) == executable(process.pid)]
        together = sum(Memory.of(pid).anonymous for pid in (process.pid, *helpers))
    yield Figure(
        "daemon with one session, Private_Dirty", alone, "MB", target=at_most(14), note="before its first fork"
    )
    yield Figure(
        "daemon and the session's supervisor, own memory",
        together,
        "MB",
        note=f"after a command; {len(helpers)} supervisor, pages shared by both counted once",
    )


class _Door:
    """A daemon's door and its secret."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.secret = secrets.token_hex(16)
        (folder / "secret").write_text(self.secret)


@contextmanager
def _daemon(bench: Bench, bundle: Bundle) -> Iterator[tuple[subprocess.Popen[bytes], _Door]]:
    """A daemon that has answered."""
    folder = bench.new_folder()
    door = _Door(folder)
    arguments = ["--door-dir", str(folder), "--state-dir", str(folder / "state"), "--work-dir", str(folder)]
    environment = {"HOME": str(folder), "PATH": os.environ["PATH"]}
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(bundle.command(str(bundle.path), *arguments), env=environment, stderr=said)
    try:
        _wait(door)
        yield process, door
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(START_SECONDS)


def _start(bench: Bench, bundle: Bundle) -> float:
    begun = time.perf_counter()
    with _daemon(bench, bundle):
        return (time.perf_counter() - begun) * 1e3


def _interpreter(bundle: Bundle) -> float:
    begun = time.perf_counter()
    subprocess.run([*bundle.python(str(bundle.path)), "-c", "pass"], check=True, timeout=START_SECONDS, env={})
    return (time.perf_counter() - begun) * 1e3


def _wait(door: _Door) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            _request(door, "GET", "/version", b"", 200)
            return
        except DoorError:
            if time.monotonic() > deadline:
                raise
            time.sleep(LOOK_SECONDS)


def _request(door: _Door, method: str, path: str, body: bytes, expected: int) -> None:
    """One request on a connection of its own. Raises `DoorError`; fails on another status."""
    head = (
        f"{method} {path} HTTP/1.1",
        "Host: door",
        f"{DOOR_HEADER}: {door.secret}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",
    )
    with connect_door(door.folder / "door.sock") as connection:
        connection.settimeout(START_SECONDS)
        connection.sendall("\r\n".join((*head, "", "")).encode() + body)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    assert answer.startswith(f"HTTP/1.1 {expected} ".encode()), answer
