"""`/proxy/{port}/{path}`: servers of the sandbox, HTTP and protocol upgrades, IPv4 loopback or IPv6."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import h11

from sandyard_daemon.errors import BadRequest, Unavailable
from sandyard_daemon.http.messages import Answer, Headers, Request, StreamResponse, Switched, Tunnel
from sandyard_daemon.wire import DOOR_HEADER, OWN_ERROR_HEADER

CONNECT_SECONDS = 5.0
_READ = 256 << 10
_MAX_HEAD = 256 << 10
_HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)
_NOT_RELAYED = _HOP_BY_HOP | {OWN_ERROR_HEADER.lower().encode()}
"""Not from a user's server: the last is how the proxy knows our own errors."""
_NEVER = frozenset({DOOR_HEADER.lower().encode(), b"host", b"expect"})


class PortRoutes:
    """Forwards one request to one port of the sandbox, streaming both ways."""

    async def forward(self, request: Request) -> Answer:
        """ANY `/proxy/{port}/{path}`; the path is kept as it was sent."""
        port = checked_port(request.parameters[0])
        upstream = _Upstream(*await connect_port(port))
        try:
            if request.header("upgrade") is not None and "upgrade" in (request.header("connection") or "").lower():
                return await _switch(request, port, upstream)
            return await _exchange(request, port, upstream)
        except (OSError, h11.RemoteProtocolError) as error:
            upstream.close()
            raise Unavailable(f"port {port} gave no valid answer: {error}") from error
        except BaseException:
            upstream.close()
            raise


async def connect_port(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to a port of the sandbox's loopback. Raises `Unavailable`."""
    for host in ("127.0.0.1", "::1"):
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(CONNECT_SECONDS):
                return await asyncio.open_connection(host, port, limit=_READ)
    raise Unavailable(f"nothing answers on port {port}")


async def _exchange(request: Request, port: int, upstream: "_Upstream") -> StreamResponse:
    upstream.start(request, [(b"Host", f"localhost:{port}".encode()), (b"Connection", b"close")])
    sending = asyncio.ensure_future(upstream.send_body(request.chunks()))
    try:
        response = await upstream.head()
    except BaseException:
        sending.cancel()
        raise
    return _relayed(response, upstream.body(sending))


async def _switch(request: Request, port: int, upstream: "_Upstream") -> Answer:
    """A tunnel only after the server's 101: behind any other answer the connection may carry our next request."""
    protocol = (request.header("upgrade") or "").encode("latin-1")
    upstream.start(
        request,
        [(b"Host", f"localhost:{port}".encode()), (b"Connection", b"Upgrade"), (b"Upgrade", protocol)],
    )
    await upstream.send_body(request.chunks())
    response = await upstream.head()
    if response.status_code != 101:
        return _relayed(response, upstream.body(None))
    tunnel = request.take_over()
    lines = [b"HTTP/1.1 101 Switching Protocols", *(name + b": " + value for name, value in response.headers)]
    await tunnel.write(b"\r\n".join(lines) + b"\r\n\r\n" + upstream.early_bytes())
    await _tunnel(tunnel, upstream.reader, upstream.writer)
    return Switched()


def _relayed(response: h11.Response | h11.InformationalResponse, body: AsyncIterator[bytes]) -> StreamResponse:
    headers = tuple(
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in response.headers
        if name.lower() not in _NOT_RELAYED
    )
    return StreamResponse(response.status_code, body, None, headers)


class _Upstream:
    """One request to a server of the sandbox."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)

    def start(self, request: Request, headers: Headers) -> None:
        headers = headers + [(name, value) for name, value in request.headers if name not in _HOP_BY_HOP | _NEVER]
        if request.header("transfer-encoding") is not None:
            headers.append((b"Transfer-Encoding", b"chunked"))
        head = h11.Request(method=request.method, target=_target(request), headers=headers)
        self.writer.write(self._http.send(head) or b"")

    def close(self) -> None:
        self.writer.close()

    def early_bytes(self) -> bytes:
        """What came behind the head of a 101."""
        return bytes(self._http.trailing_data[0])

    async def send_body(self, chunks: AsyncIterator[bytes]) -> None:
        # A server may answer and close without reading it all; its answer is what counts then.
        with contextlib.suppress(OSError):
            async for chunk in chunks:
                self.writer.write(self._http.send(h11.Data(data=chunk)) or b"")
                await self.writer.drain()
            self.writer.write(self._http.send(h11.EndOfMessage()) or b"")
            await self.writer.drain()

    async def head(self) -> h11.Response | h11.InformationalResponse:
        """The answer's head, or that of a 101."""
        while True:
            event = await self._event()
            if isinstance(event, h11.Response):
                return event
            if isinstance(event, h11.InformationalResponse) and event.status_code == 101:
                return event
            if isinstance(event, h11.ConnectionClosed):
                raise ConnectionResetError("it closed the connection")

    async def body(self, sending: "asyncio.Future[None] | None") -> AsyncIterator[bytes]:
        try:
            while isinstance(event := await self._event(), h11.Data):
                yield bytes(event.data)
        finally:
            if sending is not None:
                sending.cancel()
            self.close()

    async def _event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self.reader.read(_READ))
        return event


async def _tunnel(client: Tunnel, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Bytes both ways until either side ends."""

    async def up() -> None:
        while data := await client.read():
            writer.write(data)
            await writer.drain()

    async def down() -> None:
        while data := await reader.read(_READ):
            await client.write(data)

    ways = [asyncio.ensure_future(up()), asyncio.ensure_future(down())]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        writer.close()
        client.close()


def _target(request: Request) -> bytes:
    """What follows `/proxy/{port}`, with its own encoding and query."""
    parts = request.raw_path.split("/", 3)
    path = "/" + (parts[3] if len(parts) > 3 else "")
    return (f"{path}?{request.raw_query}" if request.raw_query else path).encode("latin-1")


def checked_port(text: str) -> int:
    """Raises `BadRequest`."""
    if not (text.isascii() and text.isdigit() and 0 < int(text[:6]) < 65536):
        raise BadRequest(f"not a port: {text}")
    return int(text)
