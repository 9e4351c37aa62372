"""Connections to one peer that are kept between exchanges."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from sandyard_proxy.connection import HttpConnection

Connect = Callable[[], Awaitable[HttpConnection]]
"""Makes a new connection or raises `DoorUnreachable`; has a deadline of its own."""

MAX_IDLE = 16
IDLE_SECONDS = 30.0
"""Far below the 75 s and more after which a daemon closes, so that an exchange never meets a closing connection."""


class ConnectionPool:
    """Lends connections; any number at a time, keeping the last `MAX_IDLE` that came back whole."""

    def __init__(self, connect: Connect, *, on_lost: Callable[[], None] | None = None) -> None:
        self._connect = connect
        self._on_lost = on_lost
        self._idle: dict[HttpConnection, asyncio.TimerHandle] = {}
        self._lent: set[HttpConnection] = set()
        self._closed = False

    @property
    def in_use(self) -> bool:
        """Whether an exchange is under way."""
        return bool(self._lent)

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[HttpConnection]:
        """A connection for one exchange, kept afterwards if it can be used again, else closed."""
        connection = await self._take()
        self._lent.add(connection)
        try:
            yield connection
        finally:
            self._lent.discard(connection)
            self._give_back(connection)

    def close(self) -> None:
        """Close what is idle now, and what is lent as soon as it comes back."""
        self._closed = True
        for connection in list(self._idle):
            connection.close()

    async def _take(self) -> HttpConnection:
        while self._idle:
            connection, timer = self._idle.popitem()
            timer.cancel()
            if not connection.closed:
                return connection
        connection = await self._connect()
        connection.on_lost = self._forget
        return connection

    def _give_back(self, connection: HttpConnection) -> None:
        if self._closed or not connection.reusable or len(self._idle) >= MAX_IDLE:
            connection.close()
            return
        self._idle[connection] = asyncio.get_running_loop().call_later(IDLE_SECONDS, connection.close)

    def _forget(self, connection: HttpConnection) -> None:
        timer = self._idle.pop(connection, None)
        if timer is None:
            return
        timer.cancel()
        if self._on_lost is not None:
            self._on_lost()
