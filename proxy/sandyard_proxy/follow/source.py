"""One command's log as the daemon keeps it: the truth that everything else is measured against."""

import json
from collections.abc import AsyncGenerator
from typing import Protocol
from urllib.parse import quote

from sandyard_daemon.wire import FrameDecoder, LogFrame, LogHead
from sandyard_proxy.connection import HttpConnection
from sandyard_proxy.doors import Door
from sandyard_proxy.errors import BrokenExchange, ProxyError
from sandyard_proxy.forward import refuse_stale

MAX_REFUSAL_BYTES = 1 << 16


class LogRefused(ProxyError):
    """The daemon has no such log; its own answer goes to the client."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"the daemon answered status {status}")
        self.refusal_status = status
        self.body = body


class LogSource(Protocol):
    """Reads one log. Every method raises `DoorUnreachable` and `LogRefused`."""

    async def head(self) -> LogHead:
        """How long the log is, and whether its command is over."""

    def read(self, cursor: int, limit: int | None = None) -> AsyncGenerator[list[LogFrame], None]:
        """Frames, as many as come together, from offset `cursor` to the current end or for `limit` payload bytes.

        Close it after use.
        """


class DaemonLog:
    """`LogSource` over the sandbox's door."""

    def __init__(self, door: Door, session_id: str, command_id: str) -> None:
        self._door = door
        self._path = f"/_daemon/logs/{quote(session_id, safe='')}/{quote(command_id, safe='')}"

    async def head(self) -> LogHead:
        async with self._door.lend() as connection:
            await self._ask(connection, "head")
            body = b"".join([chunk async for chunk in _body(connection)])
        try:
            fields = json.loads(body)
            return LogHead(
                size=int(fields["size"]),
                end=fields.get("end"),
                exit_code=fields.get("exit_code"),
                dropped=int(fields.get("dropped") or 0),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise BrokenExchange("bad gateway: the sandbox's daemon answered something else") from error

    async def read(self, cursor: int, limit: int | None = None) -> AsyncGenerator[list[LogFrame], None]:
        query = f"cursor={cursor}" + (f"&limit={limit}" if limit is not None else "")
        decoder = FrameDecoder()
        async with self._door.lend() as connection:
            await self._ask(connection, query)
            try:
                async for chunk in _body(connection):
                    if frames := list(decoder.feed(chunk)):
                        yield frames
            except ValueError as error:
                raise BrokenExchange("bad gateway: the sandbox's daemon answered something else") from error

    async def _ask(self, connection: HttpConnection, query: str) -> None:
        headers = [(b"host", b"sandbox"), *self._door.credentials]
        await connection.send_head("GET", f"{self._path}?{query}".encode(), headers)
        head = await connection.head()
        refuse_stale(head)
        if head.status != 200:
            body = b""
            async for chunk in _body(connection):
                body += chunk
                if len(body) > MAX_REFUSAL_BYTES:
                    raise BrokenExchange("bad gateway: the sandbox's daemon answered something else")
            raise LogRefused(head.status, body)


async def _body(connection: HttpConnection) -> AsyncGenerator[bytes, None]:
    while chunk := await connection.read():
        yield chunk
