"""Our name server and proxy on sockets that are given, for one sandbox or many."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from sandyard_runner.egress.names import FindClient, NameServer
from sandyard_runner.egress.outside import Here, Outside
from sandyard_runner.egress.policy import Policy
from sandyard_runner.egress.resolver import Resolver
from sandyard_runner.egress.upstreams import Upstreams

if TYPE_CHECKING:  # certificates and HTTP/2 are much to import for what few sandboxes need
    from sandyard_runner.egress.authority import EgressAuthority

BACKLOG = 128


class Sockets(msgspec.Struct, frozen=True):
    """Bound sockets: name queries of both transports, and the proxy."""

    datagrams: socket.socket
    streams: socket.socket
    proxy: socket.socket


class Services:
    """What both runtimes share: the resolver and the authority."""

    def __init__(self, folder: Path, servers: tuple[str, ...], outside: Outside | None = None) -> None:
        self._folder = folder
        self._outside = outside or Here()
        self._resolver = Resolver(servers, self._outside)
        self._upstreams = Upstreams(self._resolver, self._outside)

    @cached_property
    def authority(self) -> "EgressAuthority":
        """What sandboxes with secrets trust."""
        from sandyard_runner.egress.authority import EgressAuthority

        return EgressAuthority(self._folder)

    @asynccontextmanager
    async def serving(self, sockets: Sockets, find: FindClient) -> AsyncIterator[None]:
        """Serve on the sockets until the block ends; they are closed then."""
        from sandyard_runner.egress.proxy import SecretProxy

        names = NameServer(find, self._resolver, self._outside)
        proxy = SecretProxy(find, self._upstreams, self.authority)
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: names, sock=sockets.datagrams)
        streams = await asyncio.start_server(names.serve_stream, sock=sockets.streams, backlog=BACKLOG)
        server = await asyncio.start_server(proxy.serve, sock=sockets.proxy, backlog=BACKLOG)
        try:
            yield
        finally:
            streams.close()
            server.close()
            await names.close()
            await proxy.close()


def environment(policy: Policy, url: str, bundle: str) -> dict[str, str]:
    """The variables by which clients use the proxy and, with secrets, trust its certificates."""
    if not policy.needs_proxy:
        return {}
    proxies = {name: url for word in ("http_proxy", "https_proxy") for name in (word, word.upper())}
    nowhere = {name: "localhost,127.0.0.1,::1" for name in ("no_proxy", "NO_PROXY")}
    return proxies | nowhere | (dict.fromkeys(TRUST, bundle) if policy.secrets else {})


TRUST = ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO")
VARIABLES = (*("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "no_proxy", "NO_PROXY"), *TRUST)
"""Every variable of `environment`."""
