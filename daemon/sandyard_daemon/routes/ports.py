"""`/proxy/{port}/{path}`: servers of the sandbox, HTTP and protocol upgrades, IPv4 loopback or IPv6."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import h11

from sandyard_daemon.errors import BadRequest, Unavailable
from sandyard_daemon.http.messages import Answer, Headers, Request, StreamResponse, Switched, Tunnel
from sandyard_daemon.wire import DOOR_HEADER

CONNECT_SECONDS = 5.0
_READ = 256 << 10
_MAX_HEAD = 256 << 10
_HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)
_NEVER = frozenset({DOOR_HEADER.lower().encode(), b"host", b"expect"})


class PortRoutes:
    """Forwards one request to one port of the sandbox, streaming both ways."""

    async def forward(self, request: Request) -> Answer:
        """ANY `/proxy/{port}/{path}`; the path is kept as it was sent."""
        port = _port(request.parameters[0])
        reader, writer = await _connect(port)
        try:
            if request.header("upgrade") is not None and "upgrade" in (request.header("connection") or "").lower():
                writer.write(_upgrade_head(request, port))
                await _tunnel(request.take_over(), reader, writer)
                return Switched()
            return await _exchange(request, port, reader, writer)
        except (OSError, h11.RemoteProtocolError) as error:
            writer.close()
            raise Unavailable(f"port {port} gave no valid answer: {error}") from error
        except BaseException:
            writer.close()
            raise


async def _connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    for host in ("127.0.0.1", "::1"):
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(CONNECT_SECONDS):
                return await asyncio.open_connection(host, port, limit=_READ)
    raise Unavailable(f"nothing answers on port {port}")


async def _exchange(
    request: Request, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> StreamResponse:
    upstream = _Upstream(reader, writer)
    upstream.start(request, port)
    sending = asyncio.ensure_future(upstream.send_body(request.chunks()))
    try:
        response = await upstream.head()
    except BaseException:
        sending.cancel()
        raise
    headers = tuple(
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in response.headers
        if name.lower() not in _HOP_BY_HOP
    )
    return StreamResponse(response.status_code, upstream.body(sending), None, headers)


class _Upstream:
    """One request to a server of the sandbox."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)

    def start(self, request: Request, port: int) -> None:
        headers: Headers = [(b"Host", f"localhost:{port}".encode()), (b"Connection", b"close")]
        headers += [(name, value) for name, value in request.headers if name not in _HOP_BY_HOP | _NEVER]
        if request.header("transfer-encoding") is not None:
            headers.append((b"Transfer-Encoding", b"chunked"))
        head = h11.Request(method=request.method, target=_target(request), headers=headers)
        self._writer.write(self._http.send(head) or b"")

    async def send_body(self, chunks: AsyncIterator[bytes]) -> None:
        # A server may answer and close without reading it all; its answer is what counts then.
        with contextlib.suppress(OSError):
            async for chunk in chunks:
                self._writer.write(self._http.send(h11.Data(data=chunk)) or b"")
                await self._writer.drain()
            self._writer.write(self._http.send(h11.EndOfMessage()) or b"")
            await self._writer.drain()

    async def head(self) -> h11.Response:
        while not isinstance(event := await self._event(), h11.Response):
            if isinstance(event, h11.ConnectionClosed):
                raise ConnectionResetError("it closed the connection")
        return event

    async def body(self, sending: "asyncio.Future[None]") -> AsyncIterator[bytes]:
        try:
            while isinstance(event := await self._event(), h11.Data):
                yield bytes(event.data)
        finally:
            sending.cancel()
            self._writer.close()

    async def _event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._reader.read(_READ))
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


def _upgrade_head(request: Request, port: int) -> bytes:
    lines = [f"{request.method} ".encode() + _target(request) + b" HTTP/1.1", f"Host: localhost:{port}".encode()]
    lines += [name + b": " + value for name, value in request.headers if name not in _NEVER]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _target(request: Request) -> bytes:
    """What follows `/proxy/{port}`, with its own encoding and query."""
    parts = request.raw_path.split("/", 3)
    path = "/" + (parts[3] if len(parts) > 3 else "")
    return (f"{path}?{request.raw_query}" if request.raw_query else path).encode("latin-1")


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text[:6]) < 65536):
        raise BadRequest(f"not a port: {text}")
    return int(text)
