"""Asking a sandbox's daemon over its door: one request per connection, answers read as they come."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import h11
import msgspec

from sandyard_daemon.wire import DOOR_HEADER
from sandyard_runner.doors import open_door
from sandyard_runner.errors import DaemonUnreachable

READ_BYTES = 1 << 18
HEAD_TIMEOUT_SECONDS = 10.0
BEGIN_TIMEOUT_SECONDS = 60.0
"""For what makes or breaks a start: a moment without processor time is no reason to give a sandbox up."""
MAX_JSON_BYTES = 1 << 20


class Door(msgspec.Struct, frozen=True):
    """Where a daemon listens, and what its door asks for."""

    path: Path
    secret: str


class Answer(msgspec.Struct, frozen=True):
    """The head of an answer, and its body as it arrives."""

    status: int
    chunks: AsyncIterator[bytes]
    """Raises `DaemonUnreachable` when the connection breaks before the body's end."""


@asynccontextmanager
async def ask(
    door: Door, target: str, *, json_body: object = None, head_seconds: float | None = None
) -> AsyncIterator[Answer]:
    """`GET target`, or `POST` where there is a body. The connection ends with the block.

    Raises `DaemonUnreachable`, also when the head of the answer is not there in `head_seconds`, or the usual time.
    """
    head_seconds = HEAD_TIMEOUT_SECONDS if head_seconds is None else head_seconds
    reader, writer = await open_door(door.path)
    connection = h11.Connection(h11.CLIENT)
    try:
        try:
            async with asyncio.timeout(head_seconds):
                writer.write(_request(connection, door, target, json_body))
                await writer.drain()
                head = await _next_event(connection, reader)
        except TimeoutError as error:
            raise DaemonUnreachable(f"no answer from the daemon within {head_seconds:g} s") from error
        if not isinstance(head, h11.Response):
            raise DaemonUnreachable("the daemon closed the connection without an answer")
        yield Answer(head.status_code, _body(connection, reader))
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def ask_json(
    door: Door, target: str, *, json_body: object = None, head_seconds: float | None = None
) -> tuple[int, dict[str, Any]]:
    """Status and JSON object of `GET target`, or of `POST` where there is a body.

    Raises `DaemonUnreachable`, also for what is not JSON.
    """
    async with ask(door, target, json_body=json_body, head_seconds=head_seconds) as answer:
        body = bytearray()
        async for chunk in answer.chunks:
            body += chunk
            if len(body) > MAX_JSON_BYTES:
                raise DaemonUnreachable(f"an answer of more than {MAX_JSON_BYTES} bytes where JSON was expected")
    try:
        decoded = json.loads(body)
    except ValueError as error:
        raise DaemonUnreachable("the daemon's answer is not JSON") from error
    if not isinstance(decoded, dict):
        raise DaemonUnreachable("the daemon's answer is not a JSON object")
    return answer.status, decoded


def _request(connection: h11.Connection, door: Door, target: str, json_body: object) -> bytes:
    body = b"" if json_body is None else json.dumps(json_body).encode()
    headers = [("Host", "door"), (DOOR_HEADER, door.secret), ("Connection", "close")]
    if json_body is not None:
        headers += [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    method = "GET" if json_body is None else "POST"
    events = (h11.Request(method=method, target=target, headers=headers), h11.Data(body), h11.EndOfMessage())
    return b"".join(connection.send(event) or b"" for event in events)


async def _body(connection: h11.Connection, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """What came together, in one piece: a line or a frame may be as short as its sender likes."""
    while True:
        parts = []
        event = await _next_event(connection, reader)
        while isinstance(event, h11.Data):
            parts.append(event.data)
            event = _event_at_hand(connection)
        if parts:
            yield b"".join(parts)
        if isinstance(event, h11.EndOfMessage):
            return
        if event is not h11.NEED_DATA:
            raise DaemonUnreachable("the daemon closed the connection in the middle of an answer")


async def _next_event(connection: h11.Connection, reader: asyncio.StreamReader) -> object:
    """The next event of the answer but for interim responses. Raises `DaemonUnreachable`."""
    while True:
        event = _event_at_hand(connection)
        if event is h11.NEED_DATA:
            try:
                connection.receive_data(await reader.read(READ_BYTES))
            except (h11.RemoteProtocolError, OSError) as error:
                raise _broken(error) from error
        elif not isinstance(event, h11.InformationalResponse):
            return event


def _event_at_hand(connection: h11.Connection) -> object:
    """`NEED_DATA` when there is none. Raises `DaemonUnreachable`."""
    try:
        return connection.next_event()
    except h11.RemoteProtocolError as error:
        raise _broken(error) from error


def _broken(error: Exception) -> DaemonUnreachable:
    return DaemonUnreachable(f"the connection to the daemon broke: {error}")
