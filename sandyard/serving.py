"""Serving an ASGI application on a socket, as one owned task with an orderly end."""

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from sandyard.protocols import MAX_HEAD_BYTES, HttpProtocol

SHUTDOWN_SECONDS = 5
MAX_SOCKET_PARENT = 60
"""Characters of a directory below which a directory of ours and a socket's name still fit an address."""
PING_SECONDS = 25.0
"""Load balancers cut connections that are silent for a minute."""


class _Server(uvicorn.Server):
    """uvicorn without its hold on the process's signals: whoever starts us decides when we end."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextmanager
def sockets_directory() -> Iterator[Path]:
    """A directory of our own for unix sockets, removed at the end.

    Their addresses have 108 bytes: where the user's temporary directory has a long name, `/tmp` holds it.
    """
    usual = tempfile.gettempdir()
    place = usual if len(usual) <= MAX_SOCKET_PARENT else "/tmp"  # noqa: S108  made by mkdtemp, for us alone
    with tempfile.TemporaryDirectory(prefix="sandyard-", dir=place) as directory:
        yield Path(directory)


def listen_tcp(host: str, port: int) -> socket.socket:
    """A bound, listening socket; port 0 takes a free one. Raises `OSError` with the address in its text."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol must be named: asyncio turns Nagle's delay off only where it sees TCP, and answers took 44 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _notice_dead_peers(listener)
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from error
    listener.setblocking(False)
    return listener


def _notice_dead_peers(listener: socket.socket) -> None:
    """Let the kernel probe silent connections: a follower whose machine vanished would hold its lease for ever."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)


def listen_unix(path: Path) -> socket.socket:
    """A bound, listening unix socket that only our own user can open."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(1024)
    listener.setblocking(False)
    return listener


def _websocket(**given: Any) -> asyncio.Protocol:
    """The protocol of a connection that becomes a WebSocket."""
    from sandyard.websockets import WebSocketProtocol

    return WebSocketProtocol(**given)


@asynccontextmanager
async def serve(
    app: Callable[..., Any],
    listener: socket.socket,
    *,
    websockets: bool = True,
    certificate: tuple[Path, Path] | None = None,
) -> AsyncIterator[None]:
    """Serve `app` on `listener` until the block ends; then finish what is under way, bounded by `SHUTDOWN_SECONDS`.

    `certificate`: files of the certificate and its key; the listener speaks TLS then.

    httptools and wsproto take the long subprotocol headers of terminals and stream a gigabyte a second. Pings keep idle
    WebSockets open in what lies between; no answer is asked for, because that would cut a client that pauses.
    """
    config = uvicorn.Config(
        app,
        http=HttpProtocol,
        ws=_websocket if websockets else "none",  # type: ignore[arg-type]  # whatever makes one will do
        ws_ping_interval=PING_SECONDS,
        ws_ping_timeout=None,
        ws_per_message_deflate=False,  # log streams would be carried at the speed of zlib
        ws_max_size=1 << 26,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=90,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        ssl_certfile=certificate[0] if certificate else None,
        ssl_keyfile=certificate[1] if certificate else None,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]), name="serve")
    while not server.started:
        # uvicorn offers no event for this; it takes one or two turns of the loop.
        if task.done():
            task.result()
            raise RuntimeError("the server ended while starting")
        await asyncio.sleep(0)
    try:
        yield
    finally:
        server.should_exit = True
        await task
