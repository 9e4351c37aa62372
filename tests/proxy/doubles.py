"""Small stand-ins for what the proxy talks to: control plane, daemon, runner and their one log."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from msgspec.structs import replace

from sandyard.bus import Bus
from sandyard.serving import listen_unix, serve
from sandyard_api.jobs.client import BadKey, ControlPlaneUnreachable, SshAccessExpired, UnknownRoute
from sandyard_api.jobs.wire import (
    ClaimRequest,
    CommandRecord,
    Heartbeat,
    Job,
    JobProgress,
    JobResult,
    KeyGrant,
    Observation,
    Route,
    SessionRecord,
    Wanted,
)
from sandyard_daemon.client import connect_door
from sandyard_daemon.wire import EXIT_CODE, OWN_ERROR_HEADER, LogFrame, LogHead, Stream
from sandyard_proxy.asgi import Receive, Scope, Send, answer_json
from sandyard_runner.client import RunnerUnreachable
from sandyard_runner.wire import RelayTick, log_channel

SANDBOX = "0b9c1d52-5b5e-4a53-9f6e-3b6f5a0f7a11"
ORGANIZATION = "org-1"
KEY = "key-of-org-1"
OTHER_KEY = "key-of-org-2"
TOKEN = "previewtoken0123456789abcdefghij"
SSH_TOKEN = "sshtoken"
SECRET = "door-secret"
ROUTE = Route(
    sandbox_id=SANDBOX,
    organization_id=ORGANIZATION,
    state="started",
    door_secret=SECRET,
    preview_token=TOKEN,
    public=False,
    runner_url="http://runner",
    signing_key="sk_test",
)


class ScriptedControlPlane:
    """Knows the routes and keys it was given, and counts what it was asked."""

    def __init__(self, *routes: Route) -> None:
        self._first_routes = routes or (ROUTE,)
        self.reset()

    def reset(self) -> None:
        """Everything as at first."""
        self.routes = list(self._first_routes)
        self.ssh = {SSH_TOKEN: SANDBOX}
        self.expired_ssh = {"expired"}
        self.grants = {KEY: KeyGrant("k1", ORGANIZATION, "u1"), OTHER_KEY: KeyGrant("k2", "org-2", "u2")}
        self.signed: dict[str, Route] = {}
        """By the token of a signed preview."""
        self.asked: list[str] = []
        self.touched: dict[str, datetime] = {}
        self.away = False

    def change(self, sandbox_id: str = SANDBOX, **fields: Any) -> None:
        """Another route for a sandbox from now on."""
        self.routes = [replace(route, **fields) if route.sandbox_id == sandbox_id else route for route in self.routes]

    async def route(self, key: str) -> Route:
        self.asked.append(key)
        if self.away:
            raise ControlPlaneUnreachable
        if key in self.signed:
            return self.signed[key]
        for route in self.routes:
            if key in (route.sandbox_id, route.preview_token, f"name-{route.sandbox_id}"):
                return route
        raise UnknownRoute(key)

    async def ssh_access(self, token: str) -> str:
        if token in self.expired_ssh:
            raise SshAccessExpired
        if token not in self.ssh:
            raise UnknownRoute(token)
        return self.ssh[token]

    async def check_key(self, key: str) -> KeyGrant:
        self.asked.append("key")
        if key not in self.grants:
            raise BadKey
        return self.grants[key]

    async def touch(self, activity: Mapping[str, datetime]) -> None:
        self.touched.update(activity)

    async def claim(self, request: ClaimRequest) -> Sequence[Job]:
        raise NotImplementedError

    async def progress(self, job_id: str, progress: JobProgress) -> None:
        raise NotImplementedError

    async def finish(self, job_id: str, result: JobResult) -> None:
        raise NotImplementedError

    async def observe(self, observations: Sequence[Observation]) -> None:
        raise NotImplementedError

    async def wanted(self, runner_id: str) -> Sequence[Wanted]:
        raise NotImplementedError

    async def heartbeat(self, runner_id: str, heartbeat: Heartbeat) -> None:
        raise NotImplementedError

    async def record(self, sessions: Sequence[SessionRecord], commands: Sequence[CommandRecord]) -> None:
        raise NotImplementedError

    async def append_build_log(self, sandbox_id: str, text: str) -> None:
        raise NotImplementedError


class LogFile:
    """One command's log, as a daemon would have it: frames, and where the command ended."""

    def __init__(self) -> None:
        self.frames: list[LogFrame] = []
        self.size = 0
        self.end: int | None = None
        self.exit_code: int | None = None
        self.grown = asyncio.Condition()

    def append(self, stream: Stream, payload: bytes) -> LogFrame:
        """Add bytes and return them as the frame they make."""
        frame = LogFrame(self.size, stream, payload)
        self.frames.append(frame)
        self.size += len(payload)
        return frame

    def finish(self, exit_code: int = 0) -> None:
        """The command is over; what is appended afterwards came from its children."""
        self.end, self.exit_code = self.size, exit_code

    async def tell(self) -> None:
        """Wake whoever waits for growth."""
        async with self.grown:
            self.grown.notify_all()

    def head(self) -> LogHead:
        """As the daemon tells it."""
        return LogHead(self.size, self.end, self.exit_code)

    def since(self, cursor: int, limit: int | None) -> list[LogFrame]:
        """Frames from `cursor` to the current end, the end record where it stands."""
        stop = self.size if limit is None else min(self.size, cursor + limit)
        found: list[LogFrame] = []
        for frame in self.frames:
            if self.end is not None and frame.offset == self.end:
                found.append(self.end_record())
            start, end = max(frame.offset, cursor), min(frame.offset + len(frame.payload), stop)
            if start < end:
                found.append(LogFrame(start, frame.stream, frame.payload[start - frame.offset : end - frame.offset]))
        if self.end is not None and self.end == self.size and limit is None:
            found.append(self.end_record())
        return found

    def end_record(self) -> LogFrame:
        """The end as a frame."""
        return LogFrame(self.end or 0, Stream.END, EXIT_CODE.pack(self.exit_code or 0))

    def text(self) -> bytes:
        """All payload bytes."""
        return b"".join(frame.payload for frame in self.frames)


class ScriptedDaemon:
    """The daemon's door as an ASGI application: logs, an echo of requests, a WebSocket echo behind `/proxy/3000`."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Everything as at first."""
        self.logs: dict[tuple[str, str], LogFile] = {}
        self.requests: list[Scope] = []
        self.connections: set[object] = set()
        self.received = 0
        self.sent = 0
        self.closed_sockets = 0
        self.release = asyncio.Event()
        self.left = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.requests.append(scope)
        asked = getattr(receive, "__self__")  # noqa: B009  the server's own: of one request, or of a whole WebSocket
        self.connections.add(getattr(asked, "flow", asked))
        headers = dict(scope["headers"])
        if headers.get(b"x-sandyard-door") != SECRET.encode():
            own = [(OWN_ERROR_HEADER.lower().encode(), b"UNAUTHORIZED")]
            await answer_json(scope, send, 401, {"message": "no"}, headers=own)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["path"].startswith("/_daemon/logs/"):
            await self._log(scope, send)
        else:
            await self._http(scope, receive, send)

    async def _log(self, scope: Scope, send: Send) -> None:
        _, _, _, session, command = scope["path"].split("/")
        log = self.logs.get((session, command))
        if log is None:
            await answer_json(scope, send, 404, {"statusCode": 404, "message": "no such command", "code": "NOT_FOUND"})
            return
        query = parse_qs(scope["query_string"].decode(), keep_blank_values=True)
        if "head" in query:
            head = log.head()
            await answer_json(
                scope, send, 200, {"size": head.size, "end": head.end, "exit_code": head.exit_code, "dropped": 0}
            )
            return
        limit = int(query["limit"][0]) if "limit" in query else None
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for frame in log.since(int(query["cursor"][0]), limit):
            await send({"type": "http.response.body", "body": frame.encode(), "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path.endswith("/slow"):
            await self._slow(receive, send)
            return
        if path.endswith("/flood"):
            await self._flood(send)
            return
        if path.endswith("/refuse-body"):
            await answer_json(scope, send, 413, {"code": "PAYLOAD_TOO_LARGE"}, headers=[(b"connection", b"close")])
            return
        if path.endswith("/redirect"):
            target = parse_qs(scope["query_string"].decode())["to"][0]
            await send({"type": "http.response.start", "status": 302, "headers": [(b"location", target.encode())]})
            await send({"type": "http.response.body", "body": b""})
            return
        if path.startswith("/proxy/4000/"):
            dead = [(OWN_ERROR_HEADER.lower().encode(), b"INTERNAL_SERVER_ERROR")]
            await send({"type": "http.response.start", "status": 502, "headers": dead})
            await send({"type": "http.response.body", "body": b""})
            return
        body = await self._read(receive)
        await answer_json(scope, send, 200, describe(scope, body))

    async def _slow(self, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        released = asyncio.create_task(self.release.wait())
        gone = asyncio.create_task(self._until_gone(receive))
        await asyncio.wait({released, gone}, return_when=asyncio.FIRST_COMPLETED)
        released.cancel()
        gone.cancel()
        await asyncio.gather(released, gone, return_exceptions=True)
        await send({"type": "http.response.body", "body": b"last"})

    async def _until_gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.left.set()

    async def _flood(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(200):
            await send({"type": "http.response.body", "body": bytes(1 << 20), "more_body": True})
            self.sent += 1 << 20
        await send({"type": "http.response.body", "body": b""})

    async def _read(self, receive: Receive) -> bytes:
        body = b""
        while True:
            message = await receive()
            piece: bytes = message.get("body", b"")
            self.received += len(piece)
            body = (body + piece)[:1000]
            if not message.get("more_body"):
                return body

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if scope["path"].endswith("/refuse"):
            await answer_json(scope, send, 404, {"message": "no such terminal"})
            return
        offered = scope.get("subprotocols") or [None]
        await send({"type": "websocket.accept", "subprotocol": offered[0]})
        while (message := await receive())["type"] == "websocket.receive":
            if message.get("text") == "close":
                await send({"type": "websocket.close", "code": 4008, "reason": "as asked"})
                return
            key = "text" if message.get("text") is not None else "bytes"
            await send({"type": "websocket.send", key: message[key]})
        self.closed_sockets += 1


def describe(scope: Scope, body: bytes) -> dict[str, object]:
    """A request as JSON, for tests to look at."""
    return {
        "method": scope["method"],
        "path": scope["raw_path"].decode(),
        "query": scope["query_string"].decode(),
        "headers": {key.decode(): value.decode("latin-1") for key, value in scope["headers"]},
        "body": body.decode("latin-1"),
    }


class ScriptedRunner:
    """Relays the logs of one daemon: ticks on growth, frames on the bus as `deliver` lets them pass."""

    def __init__(self, daemon: ScriptedDaemon, bus: Bus) -> None:
        self._daemon = daemon
        self._bus = bus
        self.reset()

    def reset(self) -> None:
        """Everything as at first."""
        self.deliver: Callable[[LogFrame], Sequence[LogFrame]] = lambda frame: [frame]
        self.leases = 0
        self.refuse: str | None = None
        self.lost: str | None = None
        self.door: Path | None = None

    async def relay(self, sandbox_id: str, session_id: str, command_id: str) -> AsyncGenerator[RelayTick, None]:
        log = self._daemon.logs[session_id, command_id]
        self.leases += 1
        try:
            while True:
                if self.refuse is not None:
                    raise RunnerUnreachable(self.refuse)
                if self.lost is not None:
                    yield RelayTick(log.size, lost=self.lost)
                    return
                yield RelayTick(log.size, log.end, log.exit_code)
                if log.end is not None:
                    return
                async with log.grown:
                    await log.grown.wait()
        finally:
            self.leases -= 1

    async def connect_door(self, sandbox_id: str) -> Any:
        if self.door is None:
            raise RunnerUnreachable("this runner forwards nothing")
        return connect_door(self.door)

    async def write(self, session: str, command: str, stream: Stream, payload: bytes) -> None:
        """The command writes: into the file, onto the bus, then the ticks."""
        log = self._daemon.logs[session, command]
        for frame in self.deliver(log.append(stream, payload)):
            await self._bus.publish(log_channel(SANDBOX, command), frame.encode())
        await log.tell()

    async def end(self, session: str, command: str, exit_code: int = 0) -> None:
        """The command is over."""
        log = self._daemon.logs[session, command]
        log.finish(exit_code)
        await log.tell()


async def plain_control_plane(scope: Scope, receive: Receive, send: Send) -> None:
    """A control plane that says what it was asked; its WebSockets echo."""
    if scope["type"] == "http":
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        await answer_json(scope, send, 200, {"control_plane": True, **describe(scope, body[:1000])})
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message.get("text") or json.dumps(len(message["bytes"]))})


@asynccontextmanager
async def open_door(daemon: Any, doors_dir: Path, sandbox_id: str = SANDBOX) -> AsyncIterator[Path]:
    """The daemon behind its door."""
    directory = doors_dir / sandbox_id
    directory.mkdir(parents=True, exist_ok=True)
    async with serve(daemon, listen_unix(directory / "door.sock")):
        yield directory / "door.sock"


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition of a double, which tells of no event, with a deadline."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  doubles have no events
            await asyncio.sleep(0.005)
