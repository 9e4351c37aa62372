"""The HTTP proxy of sandboxes with secrets: tunnels, and puts values into requests to the hosts they are meant for."""

import asyncio
import contextlib
import ssl
from collections.abc import Sequence
from typing import cast
from urllib.parse import urlsplit

import h11
import structlog

from sandyard_api.jobs.wire import SecretGrant
from sandyard_runner.egress.authority import EgressAuthority
from sandyard_runner.egress.closed import is_closed
from sandyard_runner.egress.names import Client, FindClient
from sandyard_runner.egress.resolver import Resolver
from sandyard_runner.egress.substitution import Headers, substitute, substituted_headers

log = structlog.get_logger(__name__)

READ_BYTES = 1 << 16
HEAD_SECONDS = 30.0
CONNECT_SECONDS = 10.0
IDLE_SECONDS = 600.0
MAX_BODY_BYTES = 1 << 20
"""Of a body in which placeholders are looked for; a larger one passes as it is."""
CONNECTIONS_AT_ONCE = 512

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Refused(Exception):
    """What the client is told instead of an answer."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class SecretProxy:
    """`serve` is the callback of a stream server. It answers one request for each connection."""

    def __init__(
        self,
        find: FindClient,
        resolver: Resolver,
        authority: EgressAuthority,
        *,
        upstream: ssl.SSLContext | None = None,
    ) -> None:
        self._find = find
        self._resolver = resolver
        self._authority = authority
        self._upstream = upstream or ssl.create_default_context()
        self._serving: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a sandbox."""
        task = asyncio.current_task()
        client = self._find(writer.get_extra_info("peername")[0])
        if task is None or client is None or len(self._serving) >= CONNECTIONS_AT_ONCE:
            writer.close()
            return
        self._serving.add(task)
        try:
            await self._serve(client, reader, writer)
        except (OSError, asyncio.IncompleteReadError, h11.ProtocolError) as error:
            log.debug("egress_connection_broke", reason=str(error))
        finally:
            self._serving.discard(task)
            writer.close()

    async def close(self) -> None:
        """End every connection."""
        for task in list(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, client: Client, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = h11.Connection(h11.SERVER)
        try:
            request = await _read_head(server, reader)
            if request is None:
                return
            if request.method == b"CONNECT":
                await self._tunnel(client, request, reader, writer)
            else:
                await self._forward_plain(client, server, request, (reader, writer))
        except _Refused as refused:
            await _refuse(server, writer, refused)

    async def _tunnel(
        self, client: Client, request: h11.Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        host, port = _authority_of(request.target.decode("latin-1"), 443)
        grants = client.policy.secrets_for(host)
        if not grants:
            upstream = await self._connect(client, host, port)
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await _carry((reader, writer), upstream)
            return
        context = await asyncio.to_thread(self._authority.context, host)
        # What the client says next is the handshake's: it must not get into the reader before.
        cast(asyncio.Transport, writer.transport).pause_reading()
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        async with asyncio.timeout(HEAD_SECONDS):
            await writer.start_tls(context)
        server = h11.Connection(h11.SERVER)
        try:
            inner = await _read_head(server, reader)
            if inner is not None:
                upstream = await self._connect(client, host, port, tls=True)
                await _exchange(server, inner, (reader, writer), upstream, grants)
        except _Refused as refused:
            await _refuse(server, writer, refused)

    async def _forward_plain(
        self, client: Client, server: h11.Connection, request: h11.Request, downstream: Stream
    ) -> None:
        parts = urlsplit(request.target.decode("latin-1"))
        if parts.scheme != "http" or not parts.hostname:
            raise _Refused(400, "this is a proxy: ask for http://host/path, or CONNECT host:port")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        inner = h11.Request(method=request.method, target=path, headers=request.headers, http_version=b"1.1")
        upstream = await self._connect(client, parts.hostname, parts.port or 80)
        await _exchange(server, inner, downstream, upstream, client.policy.secrets_for(parts.hostname))

    async def _connect(self, client: Client, host: str, port: int, *, tls: bool = False) -> Stream:
        """To an address the sandbox itself could reach. Raises `_Refused`."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                found = [address for address, _ in await self._resolver.addresses(host)]
                address = next(
                    (each for each in found if not is_closed(each) and client.policy.allows(host, each)), None
                )
                if address is None:
                    raise _Refused(403 if found else 502, f"{host} cannot be reached from this sandbox")
                return await asyncio.open_connection(
                    address, port, ssl=self._upstream if tls else None, server_hostname=host if tls else None
                )
        except (OSError, UnicodeError) as error:
            raise _Refused(502, f"{host}:{port} does not answer: {error}") from error


async def _read_head(server: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
    """The request; `None` when the client hung up. Raises `_Refused`."""
    try:
        async with asyncio.timeout(HEAD_SECONDS):
            event = await _next(server, reader)
    except h11.RemoteProtocolError as error:
        raise _Refused(400, str(error)) from error
    return event if isinstance(event, h11.Request) else None


async def _next(connection: h11.Connection, reader: asyncio.StreamReader) -> object:
    while (event := connection.next_event()) is h11.NEED_DATA:
        async with asyncio.timeout(IDLE_SECONDS):
            connection.receive_data(await reader.read(READ_BYTES))
    return event


async def _exchange(
    server: h11.Connection,
    request: h11.Request,
    downstream: Stream,
    upstream: Stream,
    grants: Sequence[SecretGrant],
) -> None:
    """Send one request on and its answer back; after an upgrade carry bytes both ways."""
    reader, writer = downstream
    client = h11.Connection(h11.CLIENT)
    try:
        if server.they_are_waiting_for_100_continue:
            await _send(server, writer, h11.InformationalResponse(status_code=100, headers=[]))
        sending = asyncio.create_task(_send_request(server, reader, client, upstream[1], request, grants))
        try:
            await _send_answer(client, upstream[0], server, writer)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        if client.our_state is h11.SWITCHED_PROTOCOL:
            writer.write(client.trailing_data[0])
            upstream[1].write(server.trailing_data[0])
            await _carry(downstream, upstream)
    finally:
        upstream[1].close()


async def _send_request(
    server: h11.Connection,
    reader: asyncio.StreamReader,
    client: h11.Connection,
    writer: asyncio.StreamWriter,
    request: h11.Request,
    grants: Sequence[SecretGrant],
) -> None:
    headers = _request_headers(request, grants)
    length = next((int(value) for name, value in headers if name == b"content-length"), None)
    is_whole = length is not None and length <= MAX_BODY_BYTES
    body = b""
    if is_whole:
        body = substitute(await _whole_body(server, reader), grants)
        headers = [(name, str(len(body)).encode() if name == b"content-length" else value) for name, value in headers]
    target = substitute(request.target, grants)
    await _send(client, writer, h11.Request(method=request.method, target=target, headers=headers))
    if is_whole:
        await _send(client, writer, h11.Data(body))
    else:
        while isinstance(event := await _next(server, reader), h11.Data):
            await _send(client, writer, event)
    await _send(client, writer, h11.EndOfMessage())


def _request_headers(request: h11.Request, grants: Sequence[SecretGrant]) -> Headers:
    headers = substituted_headers(request.headers.raw_items(), grants)
    headers = [(name.lower(), value) for name, value in headers if name.lower() != b"expect"]
    upgrade = next((value for name, value in request.headers if name == b"upgrade"), None)
    if upgrade is not None:
        return [*headers, (b"connection", b"upgrade"), (b"upgrade", upgrade)]
    return [*headers, (b"connection", b"close")]


async def _whole_body(server: h11.Connection, reader: asyncio.StreamReader) -> bytes:
    parts = []
    while isinstance(event := await _next(server, reader), h11.Data):
        parts.append(event.data)
    return b"".join(parts)


async def _send_answer(
    client: h11.Connection, reader: asyncio.StreamReader, server: h11.Connection, writer: asyncio.StreamWriter
) -> None:
    while True:
        event = await _next(client, reader)
        if isinstance(event, h11.Response):
            headers = [(name, value) for name, value in event.headers.raw_items() if name.lower() != b"connection"]
            event = h11.Response(
                status_code=event.status_code, reason=event.reason, headers=[*headers, (b"Connection", b"close")]
            )
        if isinstance(event, h11.InformationalResponse) and event.status_code == 100:
            continue
        if event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
            return
        await _send(server, writer, event)
        if isinstance(event, h11.EndOfMessage) or client.our_state is h11.SWITCHED_PROTOCOL:
            return


async def _send(connection: h11.Connection, writer: asyncio.StreamWriter, event: object) -> None:
    data = connection.send(event)  # type: ignore[call-overload]  # an event of the other side
    if data:
        writer.write(data)
        await writer.drain()


async def _refuse(server: h11.Connection, writer: asyncio.StreamWriter, refused: _Refused) -> None:
    body = f"{refused}\n".encode()
    head = f"HTTP/1.1 {refused.status} Sandyard\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
    if server.our_state in (h11.IDLE, h11.SEND_RESPONSE, h11.ERROR):
        writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)
        await writer.drain()


async def _carry(one: Stream, other: Stream) -> None:
    """Bytes both ways until both sides ended or nothing moved for long."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            async with asyncio.timeout(IDLE_SECONDS):
                chunk = await reader.read(READ_BYTES)
            if not chunk:
                break
            writer.write(chunk)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    copies = [asyncio.create_task(copy(one[0], other[1])), asyncio.create_task(copy(other[0], one[1]))]
    try:
        with contextlib.suppress(OSError):
            await asyncio.gather(*copies)
    finally:
        for task in copies:
            task.cancel()
        await asyncio.gather(*copies, return_exceptions=True)
        other[1].close()


def _authority_of(target: str, default: int) -> tuple[str, int]:
    host, _, port = target.rpartition(":")
    if not port.isdecimal():
        host, port = target, str(default)
    return host.strip("[]").lower(), int(port)
