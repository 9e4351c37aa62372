"""The way to each sandbox's daemon: its door where this machine sees it, else through the sandbox's runner."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol, runtime_checkable

from sandyard_api.jobs.wire import Route
from sandyard_daemon.client import DOOR_NAME, DoorBusy, DoorMissing, DoorRefused, connect_door
from sandyard_daemon.wire import DOOR_HEADER
from sandyard_proxy.asgi import Headers
from sandyard_proxy.connection import HttpConnection
from sandyard_proxy.errors import DoorReplaced, DoorUnreachable, NotDelivered
from sandyard_proxy.pool import ConnectionPool
from sandyard_runner.client import RunnerClient, RunnerUnreachable

CONNECT_SECONDS = 5.0
BUSY_PAUSE_SECONDS = 0.02


@runtime_checkable
class Closable(Protocol):
    """A client that holds connections."""

    async def close(self) -> None:
        """Let go of them."""


class Runners:
    """One client per runner, made when first needed."""

    def __init__(self, make: Callable[[str], RunnerClient]) -> None:
        self._make = make
        self._clients: dict[str, RunnerClient] = {}

    def get(self, url: str) -> RunnerClient:
        """The client of the runner at `url`."""
        if url not in self._clients:
            self._clients[url] = self._make(url)
        return self._clients[url]

    async def close(self) -> None:
        """Close every client that was made."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            if isinstance(client, Closable):
                await client.close()


class Door:
    """One start of one sandbox: its connections, and the secret that its daemon asks for."""

    def __init__(self, route: Route, pool: ConnectionPool) -> None:
        self.secret = route.door_secret
        self._pool = pool

    @property
    def in_use(self) -> bool:
        """Whether an exchange is under way."""
        return self._pool.in_use

    @property
    def credentials(self) -> Headers:
        """The headers that open the door."""
        return [(DOOR_HEADER.lower().encode(), self.secret.encode())]

    def lend(self) -> AbstractAsyncContextManager[HttpConnection]:
        """A connection for one exchange. Raises `DoorUnreachable`."""
        return self._pool.lend()

    def close(self) -> None:
        """Let go of idle connections, and of the others when they come back."""
        self._pool.close()


class Doors:
    """Every door this proxy has used, the least recently used forgotten beyond `MAX_DOORS`."""

    MAX_DOORS = 1024

    def __init__(self, directory: Path, runners: Runners, forget_route: Callable[[str], None]) -> None:
        self._directory = directory
        self._runners = runners
        self._forget_route = forget_route
        self._doors: dict[str, Door] = {}

    def get(self, route: Route) -> Door:
        """The door of a sandbox as `route` describes it."""
        door = self._doors.pop(route.sandbox_id, None)
        if door is not None and door.secret != route.door_secret:
            door.close()
            door = None
        if door is None:
            door = self._make(route)
        self._doors[route.sandbox_id] = door
        self._trim()
        return door

    async def connect(self, route: Route) -> socket.socket:
        """A fresh connection that is the caller's own. Raises `DoorUnreachable`."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                return await self._open_socket(route)
        except TimeoutError as error:
            raise DoorUnreachable("bad gateway: the sandbox does not accept connections") from error
        except DoorUnreachable:
            self._forget_route(route.sandbox_id)
            raise

    def close(self) -> None:
        """Close every connection."""
        for door in self._doors.values():
            door.close()
        self._doors.clear()

    def _make(self, route: Route) -> Door:
        async def connect() -> HttpConnection:
            door = await self.connect(route)
            try:
                _, connection = await asyncio.get_running_loop().create_connection(HttpConnection, sock=door)
            except OSError as error:
                door.close()
                raise NotDelivered("bad gateway: the sandbox's daemon does not answer") from error
            except BaseException:
                door.close()
                raise
            return connection

        # A daemon that closes idle connections was restarted or stopped: what is known of it is stale.
        return Door(route, ConnectionPool(connect, on_lost=lambda: self._forget_route(route.sandbox_id)))

    async def _open_socket(self, route: Route) -> socket.socket:
        directory = self._directory / route.sandbox_id
        if not directory.is_dir() and route.runner_url is not None:
            try:
                return await self._runners.get(route.runner_url).connect_door(route.sandbox_id)
            except RunnerUnreachable as error:
                raise NotDelivered("bad gateway: the sandbox's runner does not answer") from error
        while True:
            try:
                return connect_door(directory / DOOR_NAME)
            except DoorBusy:
                await asyncio.sleep(BUSY_PAUSE_SECONDS)  # a full queue has no event that tells of room
            except DoorRefused as error:
                raise DoorReplaced(
                    "bad gateway: a program in the sandbox replaced the sandbox's own socket; restart the sandbox"
                ) from error
            except DoorMissing as error:
                raise NotDelivered("bad gateway: the sandbox's daemon does not answer") from error

    def _trim(self) -> None:
        for sandbox_id, door in list(self._doors.items())[: max(0, len(self._doors) - self.MAX_DOORS)]:
            if not door.in_use:
                del self._doors[sandbox_id]
                door.close()
