"""OTLP over HTTP with JSON bodies to one collector. *Source:* OpenTelemetry Protocol 1.x, OTLP/HTTP."""

import asyncio
import contextlib
import json
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

import h11

POST_SECONDS = 10.0
TOKEN_HEADER = "sandbox-auth-token"  # noqa: S105  a header's name

_READ = 64 << 10
_MAX_ANSWER = 64 << 10
"""Bytes of an answer that are worth reading to keep its connection."""
_PORTS = {"http": 80, "https": 443}


class Unusable(Exception):
    """This endpoint can never be posted to; the text says why."""


class Refused(Exception):
    """The collector answered with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the collector answered {status}")
        self.status = status


class Bytes(Protocol):
    """A connection as what goes through it: in the clear, or `tls.TlsBytes`."""

    async def read(self) -> bytes:
        """The next bytes; empty at the end. Raises `OSError`."""

    async def write(self, data: bytes) -> None:
        """Send, waiting while the other side is slow. Raises `OSError`."""

    def is_usable(self) -> bool:
        """Whether nothing is known to be wrong with it."""

    def close(self) -> None:
        """End it; may be repeated."""


class Collector:
    """Where to post: `http://` or `https://`. One connection is kept for the post to come."""

    def __init__(self, endpoint: str, variables: Mapping[str, str]) -> None:
        """`variables` say where the sandbox has its certificates. Raises `Unusable`."""
        try:
            parts = urlsplit(endpoint.strip())
            port = parts.port
        except ValueError as error:
            raise Unusable(f"it is no URL: {error}") from error
        if parts.scheme not in _PORTS or not parts.hostname:
            raise Unusable("it is no http:// or https:// URL")
        self._variables = variables
        self._is_secure = parts.scheme == "https"
        self._host = parts.hostname
        self._port = port or _PORTS[parts.scheme]
        self._base = parts.path.rstrip("/")
        self._authority = parts.netloc.rpartition("@")[2]
        self._idle: _Line | None = None

    async def post(self, path: str, body: Mapping[str, Any], token: str) -> None:
        """One export. Raises `Refused`, `OSError`, `TimeoutError`."""
        data = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        headers = [
            ("Host", self._authority),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(data))),
        ]
        if token:
            headers.append((TOKEN_HEADER, token))
        head = h11.Request(method="POST", target=self._base + path, headers=headers)
        async with asyncio.timeout(POST_SECONDS):
            status = await self._ask(head, data)
        if not 200 <= status < 300:
            raise Refused(status)

    def close(self) -> None:
        """Let go of the connection that was kept."""
        if self._idle is not None:
            self._idle.close()
            self._idle = None

    async def _ask(self, head: h11.Request, data: bytes) -> int:
        kept, self._idle = self._idle, None
        if kept is not None:
            # The collector may close what it has not heard from for long, at any moment: then anew.
            with contextlib.suppress(OSError):
                return await self._exchange(kept, head, data)
        return await self._exchange(_Line(await self._connect()), head, data)

    async def _exchange(self, line: "_Line", head: h11.Request, data: bytes) -> int:
        try:
            status = await line.exchange(head, data)
        except h11.ProtocolError as error:
            line.close()
            raise OSError(0, f"no valid answer: {error}") from error
        except BaseException:
            line.close()
            raise
        if self._idle is None and line.may_go_on():
            self._idle = line
        else:
            line.close()
        return status

    async def _connect(self) -> Bytes:
        plain = _PlainBytes(*await asyncio.open_connection(self._host, self._port, limit=_READ))
        if not self._is_secure:
            return plain
        try:
            # Paid for by those alone who name an https:// collector: see docs/decisions/0007.
            from sandyard_daemon.telemetry.tls import secured

            return await secured(plain, self._host, self._variables)
        except BaseException:
            plain.close()
            raise


class _PlainBytes:
    """A connection in the clear."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self) -> bytes:
        return await self._reader.read(_READ)

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def is_usable(self) -> bool:
        return not (self._reader.at_eof() or self._writer.is_closing())

    def close(self) -> None:
        self._writer.close()


class _Line:
    """HTTP/1.1 on one connection, one post after another."""

    def __init__(self, stream: Bytes) -> None:
        self._stream = stream
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_READ)

    async def exchange(self, head: h11.Request, data: bytes) -> int:
        """The answer's status. Raises `OSError`, `h11.ProtocolError`."""
        events = (head, h11.Data(data=data), h11.EndOfMessage())
        await self._stream.write(b"".join(self._http.send(event) or b"" for event in events))
        status, size = 0, 0
        while size <= _MAX_ANSWER:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await self._stream.read())
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                size += len(event.data)
            elif isinstance(event, h11.ConnectionClosed):
                raise ConnectionResetError("it closed the connection")
            elif isinstance(event, h11.EndOfMessage):
                break
        return status

    def may_go_on(self) -> bool:
        """Whether another post can follow; if so the line is ready for it."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return self._stream.is_usable()

    def close(self) -> None:
        self._stream.close()
