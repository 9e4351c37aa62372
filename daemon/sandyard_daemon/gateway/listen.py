"""`/_daemon/listen`: a port or socket in the sandbox that somebody outside serves, and its connections."""

import asyncio
import contextlib
import json
import os
import secrets
import socket
from collections.abc import Coroutine
from typing import Any

from sandyard_daemon.errors import BadRequest, NotFound, TooMany, Unavailable
from sandyard_daemon.gateway.forward import MAX_MESSAGE, READ_BYTES, Connection, check_upgrade, forward
from sandyard_daemon.http.messages import Answer, Request, Switched
from sandyard_daemon.http.websocket import Disconnected, WebSocket
from sandyard_daemon.terminal.attaching import close, first_of

TAKE_SECONDS = 15.0
"""How long a connection waits for being taken by who serves it."""
MAX_LISTENERS, MAX_WAITING = 64, 64
MAX_PORT = 65535
ADDRESSES = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


class Listeners:
    """Listens on loopback as long as somebody holds the WebSocket, on which each connection is told of."""

    def __init__(self) -> None:
        self._count = 0
        self._waiting: dict[str, tuple[Connection, asyncio.TimerHandle]] = {}

    async def listen(self, request: Request) -> Answer:
        """`?port=` (0: any free one) or `?path=`. Raises `BadRequest`, `Unavailable` before the upgrade."""
        check_upgrade(request)
        if self._count >= MAX_LISTENERS:
            raise TooMany(f"{MAX_LISTENERS} ports and sockets are listened on for clients already")
        path = request.query.get("path")
        sockets = _ports(_number(request.query.get("port", ""))) if path is None else [_at_path(path)]
        mark = (0, 0) if path is None else _mark(path)
        self._count += 1
        news: asyncio.Queue[dict[str, Any]] = asyncio.Queue(MAX_WAITING)
        servers = [await self._serve(each, news) for each in sockets]
        try:
            port = 0 if path is not None else sockets[0].getsockname()[1]
            await _tell(request, port, news)
        except (Disconnected, OSError):
            return Switched()
        finally:
            self._count -= 1
            for server in servers:
                server.close()
            if path is not None:
                with contextlib.suppress(OSError):
                    _unlink(path, mark)
            while not news.empty():
                self._drop(news.get_nowait()["id"])
        return Switched()

    async def take(self, request: Request) -> Answer:
        """The connection `?id=`, as a forwarded one. Raises `NotFound` for one that is taken or gone."""
        check_upgrade(request)
        found = self._waiting.pop(request.query.get("id", ""), None)
        if found is None:
            raise NotFound("there is no such connection any more")
        connection, timer = found
        timer.cancel()
        return await forward(request, connection)

    def close(self) -> None:
        """Hang up on those that wait."""
        for key in list(self._waiting):
            self._drop(key)

    def _serve(self, listening: socket.socket, news: "asyncio.Queue[dict[str, Any]]") -> Coroutine[Any, Any, Any]:
        async def arrived(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            key = secrets.token_hex(8)
            there = writer.get_extra_info("peername")
            origin = list(there[:2]) if isinstance(there, tuple) else ["", 0]
            try:
                news.put_nowait({"type": "accepted", "id": key, "origin": origin})
            except asyncio.QueueFull:
                writer.close()
                return
            timer = asyncio.get_running_loop().call_later(TAKE_SECONDS, self._drop, key)
            self._waiting[key] = (reader, writer), timer

        if listening.family == socket.AF_UNIX:
            return asyncio.start_unix_server(arrived, sock=listening, limit=READ_BYTES)
        return asyncio.start_server(arrived, sock=listening, limit=READ_BYTES)

    def _drop(self, key: str) -> None:
        found = self._waiting.pop(key, None)
        if found is not None:
            found[1].cancel()
            found[0][1].close()


async def _tell(request: Request, port: int, news: "asyncio.Queue[dict[str, Any]]") -> None:
    """Until the client goes."""
    client = await WebSocket.accept(request, max_message=MAX_MESSAGE)
    await client.send(json.dumps({"type": "listening", "port": port}))

    async def tell() -> tuple[int, str]:
        while True:
            await client.send(json.dumps(await news.get()))

    async def watch() -> tuple[int, str]:
        await client.receive()
        return 1007, "nothing is to be said here"

    await close(client, *await first_of(tell(), watch()))


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) <= MAX_PORT):
        raise BadRequest("port must be a number up to 65535, or path the whole path of a unix socket")
    return int(text)


def _ports(port: int) -> list[socket.socket]:
    """Listening on IPv4 loopback and, where the sandbox has it, on IPv6's. Raises `Unavailable`."""
    made: list[socket.socket] = []
    for family, address in ADDRESSES:
        try:
            each = socket.socket(family, socket.SOCK_STREAM)
        except OSError:
            continue  # no such family here
        try:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.bind((address, made[0].getsockname()[1] if made else port))
            each.listen()
            made.append(each)
        except OSError as error:
            each.close()
            if family == socket.AF_INET:
                raise Unavailable(f"cannot listen on port {port}: {error.strerror}") from error
    return made


def _at_path(path: str) -> socket.socket:
    if not path.startswith("/") or "\0" in path:
        raise BadRequest("path must be the whole path of a unix socket")
    made = socket.socket(socket.AF_UNIX)
    try:
        made.bind(path)
        made.listen()
    except OSError as error:
        made.close()
        raise Unavailable(f"cannot listen on {path}: {error.strerror or error}") from error
    return made


def _mark(path: str) -> tuple[int, int]:
    """What tells a file from another that came in its place."""
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def _unlink(path: str, mark: tuple[int, int]) -> None:
    """Remove our socket, and nothing else."""
    if _mark(path) == mark:
        os.unlink(path)
