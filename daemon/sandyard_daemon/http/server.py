"""The listener on the door: accepts connections and hands their requests to the application."""

import asyncio
import contextlib
import os
import socket

from sandyard_daemon.http.connection import Connection, Dispatch

BACKLOG = 4096


class Server:
    """Listens on one unix socket and owns its connections."""

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch
        self._connections: set[Connection] = set()
        self._server: asyncio.AbstractServer | None = None

    async def listen(self, path: str) -> None:
        """Appear at `path` only when ready: the socket is bound beside it and renamed."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        directory, name = os.path.split(path)
        handle = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # Through the descriptor a long directory name does not meet the 108 bytes of a socket address.
            temporary = f"/proc/self/fd/{handle}/.{name}.new"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            listener.bind(temporary)
            os.chmod(temporary, 0o666)  # noqa: S103  runner and proxy may be other users; the directory and the secret guard it
            listener.listen(BACKLOG)
            os.rename(temporary, f"/proc/self/fd/{handle}/{name}")
        finally:
            os.close(handle)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(self._accept, sock=listener, backlog=BACKLOG)

    async def close(self, grace_seconds: float) -> None:
        """Stop accepting, let requests end for `grace_seconds`, then cut."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.close_when_idle()
        tasks = [connection.task for connection in self._connections if connection.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=grace_seconds)
        for connection in list(self._connections):
            connection.abort()
        if tasks:
            await asyncio.wait(tasks, timeout=grace_seconds)  # what they do at their end

    def _accept(self) -> Connection:
        return Connection(self._dispatch, self._connections)
