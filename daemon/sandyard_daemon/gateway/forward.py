"""`/_daemon/forward/...`: one connection to a server inside the sandbox, by WebSocket, half-closes included."""

import asyncio
import json

from sandyard_daemon.errors import BadRequest, Unavailable
from sandyard_daemon.http.messages import Answer, Request, Switched
from sandyard_daemon.http.websocket import Disconnected, WebSocket, is_upgrade
from sandyard_daemon.routes.ports import CONNECT_SECONDS, checked_port, connect_port
from sandyard_daemon.terminal.attaching import close, first_of

MAX_MESSAGE = 2 << 20
READ_BYTES = 64 << 10
_EOF = json.dumps({"type": "eof"})

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def forward_tcp(request: Request) -> Answer:
    """To a port of the loopback. Raises `Unavailable` before the upgrade."""
    check_upgrade(request)
    return await forward(request, await connect_port(checked_port(request.parameters[0])))


async def forward_unix(request: Request) -> Answer:
    """To the unix socket `?path=`. Raises `Unavailable` before the upgrade."""
    check_upgrade(request)
    path = request.query.get("path", "")
    if not path.startswith("/") or "\0" in path:
        raise BadRequest("path must be the whole path of a unix socket")
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            connection = await asyncio.open_unix_connection(path, limit=READ_BYTES)
    except (OSError, TimeoutError) as error:
        raise Unavailable(f"nothing answers on the socket {path}") from error
    return await forward(request, connection)


def check_upgrade(request: Request) -> None:
    """Raise `BadRequest` for what is no WebSocket."""
    if not is_upgrade(request):
        raise BadRequest("this is a WebSocket: send an upgrade request")


async def forward(request: Request, connection: Connection) -> Answer:
    """Both ways until both sides ended; the connection is closed then."""
    reader, writer = connection
    try:
        socket = await WebSocket.accept(request, max_message=MAX_MESSAGE)
        up_ended = asyncio.Event()

        async def up() -> tuple[int, str]:
            while isinstance(message := await socket.receive(), bytes):
                writer.write(message)
                await writer.drain()
            writer.write_eof()
            up_ended.set()
            # Somebody must receive: a client that goes away is noticed by nothing else.
            while True:
                if isinstance(await socket.receive(), bytes):
                    return 1007, "bytes after their end"

        async def down() -> tuple[int, str]:
            while data := await reader.read(READ_BYTES):
                await socket.send(data)
            await socket.send(_EOF)
            await up_ended.wait()
            return 1000, ""

        code, reason = await first_of(up(), down())
        await close(socket, code, reason)
    except (Disconnected, OSError):
        return Switched()
    finally:
        writer.close()
    return Switched()
