"""A real daemon per test: a process on a door of its own, and a client that talks HTTP over it."""

import contextlib
import http.client
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import pytest

from sandyard_daemon.client import connect_door
from sandyard_daemon.wire import DOOR_HEADER, FrameDecoder, LogFrame, Stream
from tests.contract.running import open_folder
from tests.contract.wire_client import WebSocket

T = TypeVar("T")
SECRET = "door-secret-of-this-test"
ROOT = Path(__file__).parents[2]


def eventually(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """What `condition` gives once it is true; asked once more after that time, which may have been a stall."""
    deadline, is_late = time.monotonic() + seconds, False
    while not (value := condition()):
        if is_late:
            raise AssertionError("the condition did not become true in time")
        threading.Event().wait(0.003)
        is_late = time.monotonic() > deadline
    return value


class DoorConnection(http.client.HTTPConnection):
    """An HTTP connection through a door."""

    def __init__(self, door: Path) -> None:
        super().__init__("sandbox", timeout=60)
        self._door = door

    def connect(self) -> None:
        self.sock = connect_door(self._door)
        self.sock.settimeout(60)


class Answer:
    """Status, headers and body of one answer."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


class Daemon:
    """A running daemon and the shortest way to say things to it."""

    def __init__(self, process: "subprocess.Popen[bytes]", directory: Path) -> None:
        self.process = process
        self.directory = directory
        self.door = directory / "door" / "door.sock"
        self.home = directory / "home"
        self._connection = DoorConnection(self.door)
        self._open: list[socket.socket | DoorConnection | http.client.HTTPResponse] = [self._connection]

    def close(self) -> None:
        """Close every connection this client made."""
        for connection in self._open:
            connection.close()

    def client(self) -> "Daemon":
        """Another client of the same daemon, for another thread."""
        other = Daemon(self.process, self.directory)
        self._open.append(other._connection)
        return other

    def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        """One request on the connection of this client."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body)
        self._connection.request(method, path, data, {DOOR_HEADER: SECRET, **(headers or {})})
        return Answer(self._connection.getresponse())

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        return self.ask("POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()})

    def session(self, session_id: str = "s") -> str:
        assert self.post("/process/session", {"sessionId": session_id}).status == 201
        return session_id

    def run(self, command: str, session_id: str = "s", **headers: str) -> Any:
        """A synchronous exec's answer."""
        answer = self.post(f"/process/session/{session_id}/exec", {"command": command}, **headers)
        assert answer.status == 200, answer.body
        return answer.json

    def start(self, command: str, session_id: str = "s", **more: Any) -> str:
        """An asynchronous exec's command id."""
        answer = self.post(f"/process/session/{session_id}/exec", {"command": command, "runAsync": True, **more})
        assert answer.status == 202, answer.body
        return str(answer.json["cmdId"])

    def exit_code(self, command_id: str, session_id: str = "s") -> int | None:
        code = self.get(f"/process/session/{session_id}/command/{command_id}").json.get("exitCode")
        return None if code is None else int(code)

    def finish(self, command_id: str, session_id: str = "s", seconds: float = 60.0) -> int:
        """The exit code, once there is one."""
        eventually(lambda: self.exit_code(command_id, session_id) is not None, seconds)
        code = self.exit_code(command_id, session_id)
        assert code is not None
        return code

    def log(self, command_id: str, session_id: str = "s") -> bytes:
        """Both streams as they came."""
        return self.get(f"/process/session/{session_id}/command/{command_id}/logs").body

    def frames(self, command_id: str, session_id: str = "s", query: str = "") -> list[LogFrame]:
        answer = self.get(f"/_daemon/logs/{session_id}/{command_id}{query}")
        assert answer.status == 200, answer.body
        return list(FrameDecoder().feed(answer.body))

    def streams(self, command_id: str, session_id: str = "s") -> tuple[bytes, bytes]:
        """Stdout and stderr apart, byte for byte."""
        parts = {stream: b"" for stream in Stream}
        for frame in self.frames(command_id, session_id):
            parts[frame.stream] += frame.payload
        return parts[Stream.STDOUT], parts[Stream.STDERR]

    def execute(self, command: str, **fields: Any) -> Answer:
        return self.post("/process/execute", {"command": command, **fields})

    def raw(self, request: bytes) -> socket.socket:
        """A connection of its own with these bytes sent."""
        connection = connect_door(self.door)
        connection.settimeout(60)
        connection.sendall(request)
        self._open.append(connection)
        return connection

    def websocket(
        self, path: str, protocols: Iterable[str] = (), headers: Mapping[str, str] | None = None
    ) -> WebSocket:
        """A WebSocket of its own. Raises `wire_client.Refused`."""
        connection = connect_door(self.door)
        self._open.append(connection)
        sent = {DOOR_HEADER: SECRET, **(headers or {})}
        return WebSocket(f"ws://sandbox{path}", headers=sent, protocols=protocols, connected=connection)

    def raw_post(self, path: str, body: bytes) -> socket.socket:
        """A connection of its own with a whole POST sent."""
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\n{DOOR_HEADER}: {SECRET}\r\nContent-Length: {len(body)}\r\n\r\n"
        return self.raw(head.encode() + body)

    def follow(self, command_id: str, session_id: str = "s", cursor: int = 0) -> "Follower":
        return Follower(self, f"/_daemon/logs/{session_id}/{command_id}?follow=true&cursor={cursor}")


class Follower:
    """Reads a follow stream frame by frame."""

    def __init__(self, daemon: Daemon, path: str) -> None:
        self._connection = DoorConnection(daemon.door)
        daemon._open.append(self._connection)
        self._connection.request("GET", path, headers={DOOR_HEADER: SECRET})
        self._response = self._connection.getresponse()
        daemon._open.append(self._response)
        assert self._response.status == 200
        self._decoder = FrameDecoder()

    def frames(self) -> Iterator[LogFrame]:
        while chunk := self._response.read1(1 << 20):
            yield from self._decoder.feed(chunk)

    def rest(self) -> list[LogFrame]:
        return list(self.frames())

    def close(self) -> None:
        self._connection.close()


Starter = Callable[..., Daemon]


def cut_off(run: Callable[[int], T], has_begun: Callable[[T], Any]) -> T:
    """What a run gives that ends at a timeout of so many seconds: few ones, more where it had not begun by then."""
    return made if has_begun(made := run(3)) else run(30)


@pytest.fixture
def start_daemon(tmp_path: Path) -> Iterator[Starter]:
    """Starts daemons: `start(*arguments, **environment)`, as another `user` if asked; ends them with the test.

    `constants`: values by full name, for what a busy machine would be late for.
    """
    started: list[Daemon] = []

    def start(
        *arguments: str,
        name: str = "sandbox",
        user: str | None = None,
        constants: Mapping[str, Any] = MappingProxyType({}),
        **environment: str,
    ) -> Daemon:
        directory = tmp_path / name
        (directory / "door").mkdir(parents=True)
        (directory / "home").mkdir()
        (directory / "door" / "secret").write_text(SECRET)
        settings = (f"import {each.rpartition('.')[0]}; {each} = {value!r}\n" for each, value in constants.items())
        (directory / "sitecustomize.py").write_text("".join(settings))
        command = [sys.executable, "-m", "sandyard_daemon", "--door-dir", str(directory / "door"), *arguments]
        variables = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory / "home"),
            "PYTHONPATH": f"{directory}:{ROOT / 'daemon'}" if constants else str(ROOT / "daemon"),
            "DAYTONA_SANDBOX_ID": "sandbox-of-this-test",
            **environment,
        }
        if user is not None:
            for place in (directory, directory / "home", directory / "door", directory / "door" / "secret"):
                open_folder(place, user) if place.is_dir() else shutil.chown(place, user)
        group = None if user is None else pwd.getpwnam(user).pw_gid
        groups = None if user is None else ()
        process = subprocess.Popen(
            command,
            env=variables,
            cwd=directory / "home",
            stderr=subprocess.PIPE,
            user=user,
            group=group,
            extra_groups=groups,
        )
        daemon = Daemon(process, directory)
        started.append(daemon)
        eventually(lambda: daemon.door.exists() or process.poll() is not None)
        assert process.poll() is None, process.communicate()[1]
        return daemon

    yield start
    for daemon in started:
        with contextlib.suppress(ProcessLookupError):
            daemon.process.send_signal(signal.SIGTERM)
        daemon.close()
        daemon.process.communicate(timeout=60)


@pytest.fixture
def daemon(start_daemon: Starter) -> Daemon:
    """A daemon without an entrypoint."""
    return start_daemon()
