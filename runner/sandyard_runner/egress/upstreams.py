"""Connections of the proxy to where a sandbox may go, directly or through the sandbox's outbound proxy."""

import asyncio
import ipaddress
import socket
import ssl
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property

import h11

from sandyard_runner.egress.names import Client
from sandyard_runner.egress.outside import Outside, open_addresses
from sandyard_runner.egress.policy import OutboundProxy
from sandyard_runner.egress.requests import Refused
from sandyard_runner.egress.resolver import Resolver

CONNECT_SECONDS = 10.0
READ_BYTES = 1 << 16
MAX_LEARNED = 1024
HTTP1, HTTP2 = "http/1.1", "h2"
NO_ERROR = 200

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Upstreams:
    """Opens connections. What a host's TLS speaks is learned at the first one. Its methods raise `Refused`."""

    def __init__(self, resolver: Resolver, outside: Outside) -> None:
        self._resolver = resolver
        self._outside = outside
        self._speaks_http2: OrderedDict[tuple[str, int], bool] = OrderedDict()

    async def connect(self, client: Client, host: str, port: int) -> Stream:
        """Bytes as they are."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                if client.policy.outbound_proxy is not None:
                    return await self._through(client, client.policy.outbound_proxy, host, port)
                return await self._open(await self._address(client, host), port)
        except (OSError, UnicodeError) as error:
            raise Refused(502, f"{host}:{port} does not answer: {error}") from error

    async def connect_tls(self, client: Client, host: str, port: int, *, http2: bool) -> Stream:
        """With TLS of ours, for that version of HTTP. The host must be who it says."""
        stream = await self.connect(client, host, port)
        await self._start_tls(stream, host, port, [HTTP2] if http2 else [HTTP1])
        if http2 and _chosen(stream) != HTTP2:
            self._speaks_http2.pop((host, port), None)
            stream[1].close()
            raise Refused(502, f"{host}:{port} does not speak HTTP/2 any more")
        return stream

    async def learn(self, client: Client, host: str, port: int) -> tuple[bool, Stream | None]:
        """Whether a host speaks HTTP/2, and the connection by which that was found out, if it was only now."""
        known = self._speaks_http2.get((host, port))
        if known is not None:
            self._speaks_http2.move_to_end((host, port))
            return known, None
        stream = await self.connect(client, host, port)
        await self._start_tls(stream, host, port, [HTTP2, HTTP1])
        found = self._speaks_http2[host, port] = _chosen(stream) == HTTP2
        while len(self._speaks_http2) > MAX_LEARNED:
            self._speaks_http2.popitem(last=False)
        return found, stream

    async def connect_plain(self, client: Client, host: str, port: int) -> tuple[Stream, OutboundProxy | None]:
        """For a request in clear: to the host, or to the proxy that is asked for it by its whole address."""
        proxy = client.policy.outbound_proxy
        if proxy is None:
            return await self.connect(client, host, port), None
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._check(client, host)
                return await self._to_proxy(proxy), proxy
        except (OSError, UnicodeError) as error:
            raise Refused(502, f"{host}:{port} does not answer: {error}") from error

    async def _address(self, client: Client, host: str) -> str:
        """An address that the sandbox itself could reach."""
        found = [address for address, _ in await self._resolver.addresses(host)]
        may = [each for each in await open_addresses(self._outside, found) if client.policy.allows(host, each)]
        if not may:
            raise Refused(403 if found else 502, f"{host} cannot be reached from this sandbox")
        return may[0]

    async def _open(self, address: str, port: int) -> Stream:
        made = await self._outside.make_socket(socket.SOCK_STREAM)
        send_at_once(made)
        try:
            await asyncio.get_running_loop().sock_connect(made, (address, port))
        except BaseException:
            made.close()
            raise
        return await asyncio.open_connection(sock=made)

    async def _check(self, client: Client, host: str) -> None:
        """What is asked of an outbound proxy: names of the list it looks up itself, and others where we cannot."""
        if client.policy.allows_name(host):
            return
        try:
            found = [address for address, _ in await self._resolver.addresses(host)]
        except OSError:
            found = []
        if not found and not client.policy.is_listed and not client.policy.block_all and not _is_local(host):
            return
        if not [each for each in await open_addresses(self._outside, found) if client.policy.allows(host, each)]:
            raise Refused(403, f"{host} cannot be reached from this sandbox")

    async def _through(self, client: Client, proxy: OutboundProxy, host: str, port: int) -> Stream:
        await self._check(client, host)
        reader, writer = await self._to_proxy(proxy)
        try:
            target = f"{f'[{host}]' if ':' in host else host}:{port}"
            connection = h11.Connection(h11.CLIENT)
            headers = [("Host", target), *proxy.headers()]
            writer.write(connection.send(h11.Request(method="CONNECT", target=target, headers=headers)) or b"")
            writer.write(connection.send(h11.EndOfMessage()) or b"")
            while not isinstance(event := connection.next_event(), h11.Response):
                if event is h11.NEED_DATA:
                    connection.receive_data(await reader.read(READ_BYTES))
                elif isinstance(event, h11.ConnectionClosed):
                    raise Refused(502, f"the outbound proxy {proxy.name} hung up")
        except h11.ProtocolError as error:
            writer.close()
            raise Refused(502, f"the outbound proxy {proxy.name} does not speak HTTP") from error
        except BaseException:
            writer.close()
            raise
        if event.status_code != NO_ERROR:
            writer.close()
            raise Refused(502, f"the outbound proxy {proxy.name} refused {target}: {event.status_code}")
        if early := connection.trailing_data[0]:  # a server that speaks first
            reader.feed_data(early)
        return reader, writer

    async def _to_proxy(self, proxy: OutboundProxy) -> Stream:
        try:
            found = [address for address, _ in await self._resolver.addresses(proxy.host)]
            may = await open_addresses(self._outside, found)
            if not may:
                raise Refused(502, f"the outbound proxy {proxy.name} is at an address that sandboxes may not reach")
            stream = await self._open(may[0], proxy.port)
            if proxy.is_tls:
                await stream[1].start_tls(self._any_tls, server_hostname=proxy.host)
        except OSError as error:
            raise Refused(502, f"the outbound proxy {proxy.name} does not answer: {error}") from error
        return stream

    async def _start_tls(self, stream: Stream, host: str, port: int, protocols: Sequence[str]) -> None:
        context = self._contexts[tuple(protocols)]
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await stream[1].start_tls(context, server_hostname=host)
        except OSError as error:
            stream[1].close()
            raise Refused(502, f"{host}:{port} does not answer: {error}") from error

    @cached_property
    def _contexts(self) -> dict[tuple[str, ...], ssl.SSLContext]:
        made = {}
        for protocols in ([HTTP1], [HTTP2], [HTTP2, HTTP1]):
            made[tuple(protocols)] = context = ssl.create_default_context()
            context.set_alpn_protocols(protocols)
        return made

    @cached_property
    def _any_tls(self) -> ssl.SSLContext:
        return ssl.create_default_context()


def send_at_once(made: socket.socket) -> None:
    """Without waiting for what was sent before to be acknowledged: asyncio sees to that only for sockets it made."""
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _chosen(stream: Stream) -> str | None:
    found: str | None = stream[1].get_extra_info("ssl_object").selected_alpn_protocol()
    return found


def _is_local(host: str) -> bool:
    """A name of the proxy's own machine, or an IPv6 address, which we do not judge."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
