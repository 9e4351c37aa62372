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
from tests.contract.wire_client import WebSocket

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


def measure_after_use(bench: Bench) -> Iterator[Row]:
    """What stays in the daemon's memory when everything of the toolbox was used once."""
    with _daemon(bench, ensure_bundle(bench.new_folder())) as (process, door):
        time.sleep(SETTLE_SECONDS)
        before = Memory.of(process.pid).resident  # not the private part: forked supervisors share pages from then on
        _use_everything(door)
        time.sleep(SETTLE_SECONDS)
        after = Memory.of(process.pid).resident
    yield Figure(
        "daemon, resident memory that stays after the whole toolbox was used",
        after - before,
        "MB",
        target=at_most(4),
        note=f"{before:.1f} MB before; files of 64 MB, git, code, interpreter, terminal, ports, metrics",
    )


def _use_everything(door: "_Door") -> None:
    content = bytes(64 << 20)
    _request(door, "POST", "/files/upload-v2?path=big", content, 200, kind="application/octet-stream")
    for method, path, body, expected in (
        ("GET", "/files/download?path=big", b"", 200),
        ("GET", "/files", b"", 200),
        ("GET", "/files/search?path=.&pattern=*", b"", 200),
        ("POST", "/files/replace", b'{"files": ["secret-less"], "pattern": "a", "newValue": "b"}', 200),
        ("DELETE", "/files?path=big", b"", 204),
        ("POST", "/git/init", b'{"path": "repository"}', 201),
        ("GET", "/git/branches?path=repository", b"", 200),
        ("POST", "/process/code-run", b'{"code": "print(1)", "language": "python"}', 200),
        ("POST", "/process/pty", b'{"id": "bench"}', 201),
        ("DELETE", "/process/pty/bench", b"", 200),
        ("GET", "/port", b"", 200),
        ("GET", "/system/metrics", b"", 200),
    ):
        _request(door, method, path, body, expected)
    with connect_door(door.folder / "door.sock") as connection:
        connection.settimeout(START_SECONDS)
        url, headers = "ws://door/process/interpreter/execute", {DOOR_HEADER: door.secret}
        socket = WebSocket(url, headers=headers, connected=connection)
        socket.send('{"code": "print(1)"}')
        assert list(socket.messages()), "the interpreter said nothing"


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


def _request(
    door: _Door, method: str, path: str, body: bytes, expected: int, *, kind: str = "application/json"
) -> None:
    """One request on a connection of its own. Raises `DoorError`; fails on another status."""
    head = (
        f"{method} {path} HTTP/1.1",
        "Host: door",
        f"{DOOR_HEADER}: {door.secret}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        "Connection: close",
    )
    with connect_door(door.folder / "door.sock") as connection:
        connection.settimeout(START_SECONDS)
        connection.sendall("\r\n".join((*head, "", "")).encode() + body)
        answer = connection.recv(1 << 20)
        while connection.recv(1 << 20):
            pass
    assert answer.startswith(f"HTTP/1.1 {expected} ".encode()), answer
