"""The HTTP proxy of sandboxes with secrets or an outbound proxy: it tunnels, and puts values into requests."""

import asyncio
import contextlib
import os
import socket
from typing import cast
from urllib.parse import urlsplit

import h11
import msgspec
import structlog

from sandyard_runner.egress import http2
from sandyard_runner.egress.authority import EgressAuthority
from sandyard_runner.egress.exchange import HEAD_SECONDS, Downstream, carry, exchange
from sandyard_runner.egress.names import Client, FindClient
from sandyard_runner.egress.requests import Refused
from sandyard_runner.egress.sides import refuse
from sandyard_runner.egress.substitution import Substitution
from sandyard_runner.egress.upstreams import HTTP2, READ_BYTES, Stream, Upstreams, send_at_once

log = structlog.get_logger(__name__)

CONNECTIONS_AT_ONCE = 512
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
HANDSHAKE = b"\x16"
"""First byte of TLS. *Source:* RFC 8446 5.1."""
HTTP2_PREFACE = b"PRI "
METHODS = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"PATCH ", b"DELETE ", b"OPTIONS ", b"PROPFIND ", b"REPORT ")
"""By which HTTP in clear is told from other protocols in a tunnel."""


class _Tunnel(msgspec.Struct, frozen=True):
    """What a sandbox asked for by CONNECT."""

    client: Client
    host: str
    port: int
    substitution: Substitution


class SecretProxy:
    """`serve` is the callback of a stream server."""

    def __init__(self, find: FindClient, upstreams: Upstreams, authority: EgressAuthority) -> None:
        self._find = find
        self._upstreams = upstreams
        self._authority = authority
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
            send_at_once(writer.get_extra_info("socket"))
            await self._serve(client, reader, writer)
        except (OSError, asyncio.IncompleteReadError, h11.ProtocolError) as error:
            # Words of these might repeat what was sent.
            log.debug("egress_connection_broke", reason=type(error).__name__)
        finally:
            self._serving.discard(task)
            writer.close()

    async def close(self) -> None:
        """End every connection."""
        for task in list(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, client: Client, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        down = Downstream((reader, writer))
        try:
            request = await down.head()
            if request is None:
                return
            if request.method != b"CONNECT":
                await self._forward_plain(client, down, request)
                return
            host, port = _authority_of(request.target.decode("latin-1"), 443)
            tunnel = _Tunnel(client, host, port, Substitution(client.policy.secrets_for(host)))
            if not tunnel.substitution:
                upstream = await self._upstreams.connect(client, host, port)
                writer.write(ESTABLISHED)
                await carry((reader, writer), upstream)
                return
        except Refused as refused:
            await down.refuse(refused)
            return
        await self._open(tunnel, (reader, writer))

    async def _forward_plain(self, client: Client, down: Downstream, request: h11.Request) -> None:
        parts = urlsplit(request.target.decode("latin-1"))
        if parts.scheme != "http" or not parts.hostname:
            raise Refused(400, "this is a proxy: ask for http://host/path, or CONNECT host:port")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        upstream, proxy = await self._upstreams.connect_plain(client, parts.hostname, parts.port or 80)
        place = parts.netloc.rpartition("@")[2]
        # The target decides; a proxy sends the host accordingly (RFC 9112 3.2.2).
        headers = [
            (b"Host", place.encode()),
            *(item for item in request.headers.raw_items() if item[0].lower() != b"host"),
        ]
        inner = h11.Request(
            method=request.method,
            target=f"http://{place}{path}" if proxy else path,
            headers=headers,
            http_version=b"1.1",
        )
        substitution = Substitution(client.policy.secrets_for(parts.hostname))
        extra = proxy.headers() if proxy else []
        await exchange(down, inner, upstream, substitution, host=parts.hostname, extra=extra)

    async def _open(self, tunnel: _Tunnel, downstream: Stream) -> None:
        """To a host with secrets: what is spoken is found out by what the client says first."""
        writer = downstream[1]
        # What the client says next may be a handshake's: it must not get into the reader before.
        cast(asyncio.Transport, writer.transport).pause_reading()
        writer.write(ESTABLISHED)
        async with asyncio.timeout(HEAD_SECONDS):
            first = await _peek(writer)
        if first.startswith(HANDSHAKE):
            await self._open_tls(tunnel, downstream)
            return
        cast(asyncio.Transport, writer.transport).resume_reading()
        if first.startswith(HTTP2_PREFACE):
            await self._speak_http2(tunnel, downstream, None, is_tls=False)
        elif first.startswith(METHODS):
            await self._speak_http1(tunnel, downstream, None, is_tls=False)
        else:
            with contextlib.suppress(Refused):
                await carry(downstream, await self._upstreams.connect(tunnel.client, tunnel.host, tunnel.port))

    async def _open_tls(self, tunnel: _Tunnel, downstream: Stream) -> None:
        """Offer the client what the host speaks; of one that cannot be had, either can tell."""
        is_http2, upstream = True, None
        with contextlib.suppress(Refused):
            is_http2, upstream = await self._upstreams.learn(tunnel.client, tunnel.host, tunnel.port)
        try:
            context = await asyncio.to_thread(self._authority.context, tunnel.host, http2=is_http2)
            async with asyncio.timeout(HEAD_SECONDS):
                await downstream[1].start_tls(context)
            is_chosen = downstream[1].get_extra_info("ssl_object").selected_alpn_protocol() == HTTP2
            if upstream is not None and is_http2 != is_chosen:
                upstream[1].close()
                upstream = None
            if is_chosen:
                await self._speak_http2(tunnel, downstream, upstream)
            else:
                await self._speak_http1(tunnel, downstream, upstream)
        finally:
            if upstream is not None:
                upstream[1].close()

    async def _speak_http2(
        self, tunnel: _Tunnel, downstream: Stream, upstream: Stream | None, *, is_tls: bool = True
    ) -> None:
        try:
            upstream = upstream or await self._connect(tunnel, is_tls=is_tls, http2=True)
            await http2.Http2Relay(downstream, upstream, tunnel.substitution, tunnel.host).run()
        except Refused as refused:
            await refuse(downstream, refused)

    async def _speak_http1(
        self, tunnel: _Tunnel, downstream: Stream, upstream: Stream | None, *, is_tls: bool = True
    ) -> None:
        down = Downstream(downstream)
        try:
            request = await down.head()
            if request is None:
                return
            upstream = upstream or await self._connect(tunnel, is_tls=is_tls, http2=False)
            await exchange(down, request, upstream, tunnel.substitution, host=tunnel.host)
        except Refused as refused:
            await down.refuse(refused)

    async def _connect(self, tunnel: _Tunnel, *, is_tls: bool, http2: bool) -> Stream:
        if is_tls:
            return await self._upstreams.connect_tls(tunnel.client, tunnel.host, tunnel.port, http2=http2)
        return await self._upstreams.connect(tunnel.client, tunnel.host, tunnel.port)


async def _peek(writer: asyncio.StreamWriter) -> bytes:
    """What has come and is still to be read, once there is something; empty at the end."""
    loop = asyncio.get_running_loop()
    with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as other:
        other.setblocking(False)
        readable = asyncio.Event()
        loop.add_reader(other, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(other)
        found: bytes = other.recv(READ_BYTES, socket.MSG_PEEK)
        return found


def _authority_of(target: str, default: int) -> tuple[str, int]:
    host, _, port = target.rpartition(":")
    if not port.isdecimal():
        host, port = target, str(default)
    return host.strip("[]").lower(), int(port)
