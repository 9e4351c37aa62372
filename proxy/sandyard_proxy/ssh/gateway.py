"""The gateway's door to the world: connections accepted within bounds, and ended when their sandbox is."""

import asyncio
import importlib
import socket
from typing import Any

import msgspec
import structlog

from sandyard.clock import Clock
from sandyard_proxy.activity import Activity
from sandyard_proxy.ssh.access import Access, Refused

log = structlog.get_logger(__name__)

MAX_CONNECTIONS = 256
WATCH_SECONDS = 5.0
"""Between two looks at whether the sandboxes of open connections still run."""
PAUSE_SECONDS = 0.1


class SshListener(msgspec.Struct, frozen=True):
    """What the gateway is given: a bound socket, which it takes over, and its private key as OpenSSH writes it."""

    socket: socket.socket
    host_key: str


class SshGateway:
    """Serves SSH. The library is imported by the first client: most installations never have one."""

    def __init__(self, listener: SshListener, access: Access, *, activity: Activity, clock: Clock) -> None:
        self._listener = listener
        self._access = access
        self._activity = activity
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: set[Any] = set()
        self._key: Any = None

    async def run(self) -> None:
        """Accept and watch until cancelled; then every client is cut off."""
        watching = asyncio.create_task(self._watch())
        try:
            await self._accept()
        finally:
            self._listener.socket.close()
            tasks = [watching, *self._tasks]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(self._listener.socket)
            except OSError as error:
                log.warning("ssh_accept_failed", error=str(error))
                await asyncio.sleep(PAUSE_SECONDS)  # out of descriptors, for instance: no event tells when that ends
                continue
            if len(self._tasks) >= MAX_CONNECTIONS:
                accepted.close()
                continue
            task = asyncio.create_task(self._serve(accepted))
            self._tasks.add(task)
            task.add_done_callback(self._over)

    def _over(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("ssh_connection_failed", exc_info=error)

    async def _serve(self, accepted: socket.socket) -> None:
        with accepted:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server = await asyncio.to_thread(importlib.import_module, "sandyard_proxy.ssh.server")
            if self._key is None:
                self._key = server.ServerKey.read(self._listener.host_key)
            connection = server.Connection(self._access)
            self._connections.add(connection)
            try:
                await connection.run(accepted, self._key, self._activity)
            finally:
                self._connections.discard(connection)

    async def _watch(self) -> None:
        """A connection outlives its token, but not its sandbox: it would keep a stopped one from being archived."""
        while True:
            await self._clock.sleep(WATCH_SECONDS)
            for connection in list(self._connections):
                if connection.sandbox_id is None:
                    continue
                try:
                    await self._access.route(connection.sandbox_id)
                except Refused as error:
                    if error.__cause__ is None:  # the control plane was asked, and said so
                        connection.disconnect(str(error))
