"""The runner's own HTTP API (raw ASGI, nothing is buffered): health, log leases, tunnels to doors. See `wire`."""

import asyncio
import contextlib
import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import msgspec

from sandyard_runner.door_http import Door, ask_json
from sandyard_runner.doors import open_door
from sandyard_runner.errors import DaemonUnreachable
from sandyard_runner.relay import FindDoor, Relay
from sandyard_runner.wire import UsageSample

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
UsageOf = Callable[[str], Sequence[UsageSample]]

CLOSED, CANNOT_OPEN = 1000, 1011
DAEMON_TIMEOUT_SECONDS = 4.0
"""Below what the control plane waits, so that it learns why."""
TUNNEL_CHUNK_BYTES = 1 << 16


def create_app(relay: Relay, find_door: FindDoor, usage_of: UsageOf, token: str) -> App:
    """The ASGI application. `token` is what every request must carry as its bearer."""
    expected = f"Bearer {token}".encode()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        given = dict(scope["headers"]).get(b"authorization", b"")
        parts = [unquote(part) for part in _path(scope).strip("/").split("/")]
        if not hmac.compare_digest(given, expected):
            await _refuse(scope, send, 401, "the internal token is missing or wrong")
        elif scope["type"] == "websocket" and len(parts) == 2 and parts[0] == "forward":
            await _forward(find_door(parts[1]), receive, send)
        elif scope["type"] == "http" and len(parts) == 4 and parts[0] == "relay":
            await _relay(relay, parts, receive, send)
        elif scope["type"] == "http" and len(parts) == 2 and parts[0] == "environment":
            await _change_environment(find_door(parts[1]), receive, send)
        elif scope["type"] == "http" and len(parts) == 2 and parts[0] == "usage":
            await _answer(send, 200, {"samples": [msgspec.structs.astuple(sample) for sample in usage_of(parts[1])]})
        elif scope["type"] == "http" and parts == ["health"]:
            await _answer(send, 200, {"status": "ok", "tails": relay.tails})
        else:
            await _refuse(scope, send, 404, "no such path")

    return app


def _path(scope: Scope) -> str:
    # The raw path keeps %2F apart from /: session ids are chosen by users.
    raw: bytes = scope["raw_path"]
    return raw.partition(b"?")[0].decode("latin-1")


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _refuse(scope: Scope, send: Send, status: int, message: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": message})
    else:
        await _answer(send, status, {"message": message})


async def _answer(send: Send, status: int, body: dict[str, object]) -> None:
    content = json.dumps(body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def _relay(relay: Relay, parts: list[str], receive: Receive, send: Send) -> None:
    """Ticks until the command is over or the client goes: the open request is the lease."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/x-ndjson")]})
    ticking = asyncio.create_task(_send_ticks(relay, parts, send))
    leaving = asyncio.create_task(_until_disconnect(receive))
    try:
        await asyncio.wait((ticking, leaving), return_when=asyncio.FIRST_COMPLETED)
        if ticking.done():
            ticking.result()
    finally:
        for task in (ticking, leaving):
            task.cancel()
        await asyncio.gather(ticking, leaving, return_exceptions=True)


async def _send_ticks(relay: Relay, parts: list[str], send: Send) -> None:
    _, sandbox_id, session_id, command_id = parts
    async with contextlib.aclosing(relay.ticks(sandbox_id, session_id, command_id)) as ticks:
        async for tick in ticks:
            line = msgspec.json.encode(tick) + b"\n"
            await send({"type": "http.response.body", "body": line, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue


async def _change_environment(door: Door | None, receive: Receive, send: Send) -> None:
    """Give variables to a sandbox's daemon: 204, or 502 when it cannot be reached or does not take them."""
    body = bytearray()
    while (message := await receive())["type"] == "http.request":
        body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    try:
        if door is None:
            raise DaemonUnreachable("the sandbox is not running on this runner")
        async with asyncio.timeout(DAEMON_TIMEOUT_SECONDS):
            status, answer = await ask_json(door, "/env", json_body={"set": json.loads(body)})
        if status != HTTPStatus.OK:
            raise DaemonUnreachable(f"the daemon refused: {answer.get('message', status)}")
    except (DaemonUnreachable, TimeoutError, ValueError) as error:
        await _answer(send, 502, {"message": str(error) or type(error).__name__})
        return
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def _forward(door: Door | None, receive: Receive, send: Send) -> None:
    """Carry bytes between a WebSocket and a door until either side closes."""
    await receive()  # websocket.connect
    try:
        if door is None:
            raise DaemonUnreachable("the sandbox is not running on this runner")
        reader, writer = await open_door(door.path)
    except DaemonUnreachable as error:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": CANNOT_OPEN, "reason": error.message[:120]})
        return
    await send({"type": "websocket.accept"})
    inbound = asyncio.create_task(_inbound(receive, writer))
    outbound = asyncio.create_task(_outbound(reader, send))
    try:
        await asyncio.wait((inbound, outbound), return_when=asyncio.FIRST_COMPLETED)
        if outbound.done():
            await send({"type": "websocket.close", "code": CLOSED})
    finally:
        for task in (inbound, outbound):
            task.cancel()
        await asyncio.gather(inbound, outbound, return_exceptions=True)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _inbound(receive: Receive, writer: asyncio.StreamWriter) -> None:
    while (message := await receive())["type"] == "websocket.receive":
        writer.write(message.get("bytes") or b"")
        await writer.drain()


async def _outbound(reader: asyncio.StreamReader, send: Send) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(TUNNEL_CHUNK_BYTES):
            await send({"type": "websocket.send", "bytes": chunk})
