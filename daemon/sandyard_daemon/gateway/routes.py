"""The routes below `/_daemon` that are loaded late, and the file conversation."""

import asyncio
import errno
from typing import Any

from sandyard_daemon.areas import Context
from sandyard_daemon.errors import BadRequest
from sandyard_daemon.gateway.files import Files, Wrong
from sandyard_daemon.gateway.forward import forward_tcp, forward_unix
from sandyard_daemon.gateway.listen import Listeners
from sandyard_daemon.gateway.programs import Programs
from sandyard_daemon.http.messages import Answer, Handler, Request, Switched
from sandyard_daemon.http.websocket import Disconnected, WebSocket, is_upgrade
from sandyard_daemon.terminal.attaching import close
from sandyard_daemon.wire.messages import pack, unpack

MAX_MESSAGE = 1 << 20
MAX_CLIENTS = 64
"""File conversations at a time; each holds the descriptors of at the most `files.MAX_HANDLES` files."""


class GatewayArea:
    """What the SSH gateway and the web terminal ask."""

    def __init__(self, context: Context) -> None:
        self._programs = Programs(context)
        self._environment = context.environment
        self._file_clients = 0
        self._listeners = Listeners()

    def handlers(self) -> dict[str, Handler]:
        """By operation id."""
        return {
            "Exec": self._programs.exec,
            "WebTerminal": self._programs.terminal,
            "ForwardTcp": forward_tcp,
            "ForwardUnix": forward_unix,
            "Listen": self._listeners.listen,
            "ForwardAccepted": self._listeners.take,
            "FileSystem": self.files,
        }

    async def close(self) -> None:
        """Hang up on every program, and on connections that nobody took."""
        self._listeners.close()
        await self._programs.close()

    async def files(self, request: Request) -> Answer:
        """One answer to each request, in order. What a client left open is closed when it goes."""
        if not is_upgrade(request):
            raise BadRequest("this is a WebSocket: send an upgrade request")
        if self._file_clients >= MAX_CLIENTS:
            raise BadRequest(f"there are {MAX_CLIENTS} file conversations already")
        self._file_clients += 1
        files = Files(self._environment.home)
        try:
            socket = await WebSocket.accept(request, max_message=MAX_MESSAGE)
            while True:
                message = await socket.receive()
                answer = await _answer(files, message) if isinstance(message, bytes) else None
                if answer is None:
                    await close(socket, 1007, "a malformed message")
                    break
                await socket.send(answer)
        except Disconnected:
            return Switched()
        finally:
            self._file_clients -= 1
            files.close()
        return Switched()


async def _answer(files: Files, message: bytes) -> bytes | None:
    """`None` for what is no request."""
    try:
        head, payload = unpack(message)
    except ValueError:
        return None
    operation = files.operations.get(str(head.get("op")))
    if operation is None:
        return _failure(head, "ENOSYS", "unknown operation")
    task = asyncio.get_running_loop().run_in_executor(None, operation, head, payload)
    try:
        # Shielded: the files may only be closed when no thread uses them any more.
        made, data = await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
    except OSError as error:
        return _failure(head, errno.errorcode.get(error.errno or 0, "EIO"), error.strerror or str(error))
    except (Wrong, ValueError, UnicodeError, OverflowError) as error:
        return _failure(head, "EINVAL", str(error))
    return pack({**made, "id": head.get("id")}, data)


def _failure(head: dict[str, Any], code: str, message: str) -> bytes:
    return pack({"id": head.get("id"), "error": code, "message": message})
