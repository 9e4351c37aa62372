"""OTLP over HTTP with JSON bodies to one collector. *Source:* OpenTelemetry Protocol 1.x, OTLP/HTTP."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import h11

POST_SECONDS = 10.0
TOKEN_HEADER = "sandbox-auth-token"  # noqa: S105  a header's name

_READ = 64 << 10


class Unusable(Exception):
    """This endpoint can never be posted to; the text says why."""


class Refused(Exception):
    """The collector answered with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the collector answered {status}")
        self.status = status


class Collector:
    """Where to post. Plain HTTP: the daemon carries no TLS."""

    def __init__(self, endpoint: str) -> None:
        """Raises `Unusable`."""
        try:
            parts = urlsplit(endpoint.strip())
            port = parts.port
        except ValueError as error:
            raise Unusable(f"it is no URL: {error}") from error
        if parts.scheme == "https":
            raise Unusable("https is not supported, the daemon carries no TLS; name an http:// collector")
        if parts.scheme != "http" or not parts.hostname:
            raise Unusable("it is no http:// URL")
        self._host = parts.hostname
        self._port = port or 80
        self._base = parts.path.rstrip("/")
        self._authority = parts.netloc.rpartition("@")[2]

    async def post(self, path: str, body: Mapping[str, Any], token: str) -> None:
        """One export. Raises `Refused`, `OSError`, `TimeoutError`."""
        data = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        async with asyncio.timeout(POST_SECONDS):
            reader, writer = await asyncio.open_connection(self._host, self._port, limit=_READ)
            try:
                status = await self._exchange(reader, writer, path, data, token)
            except h11.ProtocolError as error:
                raise OSError(0, f"no valid answer: {error}") from error
            finally:
                writer.close()
        if not 200 <= status < 300:
            raise Refused(status)

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, data: bytes, token: str
    ) -> int:
        http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_READ)
        headers = [
            ("Host", self._authority),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(data))),
            ("Connection", "close"),
        ]
        if token:
            headers.append((TOKEN_HEADER, token))
        head = h11.Request(method="POST", target=self._base + path, headers=headers)
        writer.write((http.send(head) or b"") + (http.send(h11.Data(data=data)) or b""))
        await writer.drain()
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(await reader.read(_READ))
            elif isinstance(event, h11.Response):
                return event.status_code
            elif isinstance(event, h11.ConnectionClosed):
                raise ConnectionResetError("it closed the connection")
