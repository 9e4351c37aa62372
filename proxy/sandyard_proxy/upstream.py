"""The control plane as another process: everything that is not the proxy's is carried there unchanged."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from sandyard_proxy.asgi import App, Message, Receive, Scope, Send, answer_json, end_to_end, raw_path
from sandyard_proxy.connection import HttpConnection
from sandyard_proxy.errors import ControlPlaneAway, DoorUnreachable, envelope
from sandyard_proxy.forward import ClientGone, Outgoing, answer_headers, forward
from sandyard_proxy.pool import Connect, ConnectionPool
from sandyard_proxy.tunnel import tunnel

CONNECT_SECONDS = 5.0


@asynccontextmanager
async def open_upstream(base_url: str) -> AsyncIterator[App]:
    """An ASGI application that is the server at `base_url` (`http://host:port`, `https://...` or `unix:/path`)."""
    pool = ConnectionPool(_connector(base_url))
    try:
        yield _Upstream(pool)
    finally:
        pool.close()


def _connector(base_url: str) -> Connect:
    async def connect() -> HttpConnection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                if base_url.startswith("unix:"):
                    path = base_url.removeprefix("unix:")
                    _, connection = await loop.create_unix_connection(HttpConnection, path)
                    return connection
                parts = urlsplit(base_url)
                context = ssl.create_default_context() if parts.scheme == "https" else None
                port = parts.port or (443 if context else 80)
                _, connection = await loop.create_connection(HttpConnection, parts.hostname or "", port, ssl=context)
                return connection
        except (OSError, TimeoutError) as error:
            raise DoorUnreachable("the control plane does not answer") from error

    return connect


class _Upstream:
    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def tell(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        query: bytes = scope.get("query_string") or b""
        target = raw_path(scope) + (b"?" + query if query else b"")
        outgoing = Outgoing(scope.get("method", "GET"), target, end_to_end(scope["headers"]))
        try:
            if scope["type"] == "websocket":
                await tunnel(scope, receive, tell, self._pool.lend, outgoing)
            else:
                await forward(receive, tell, self._pool.lend, outgoing, answer_headers)
        except ClientGone:
            return
        except DoorUnreachable:
            if started:
                raise
            away = ControlPlaneAway("service unavailable: the control plane does not answer")
            body = envelope(away, outgoing.method, scope["path"])
            await answer_json(scope, send, int(away.status), body)
