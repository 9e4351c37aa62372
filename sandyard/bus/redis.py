"""The bus of many processes: Redis publish and subscribe, with one subscriber connection per process."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import redis.asyncio as redis
import structlog
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from sandyard.bus.contract import BusError, Message, Subscription
from sandyard.bus.queue import MAX_BYTES, MAX_MESSAGES, MessageQueue

log = structlog.get_logger(__name__)

DEADLINE_SECONDS = 5.0
"""For every single command, and for the confirmation of a subscription."""
HEARTBEAT_SECONDS = 10.0
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 1.0
COUNTS = "sandyard:counts:"
"""Begins the key of each hash of counts."""
COUNTED_SECONDS = 86400


class _Channel(msgspec.Struct):
    queues: list[MessageQueue] = msgspec.field(default_factory=list)
    confirmed: asyncio.Event = msgspec.field(default_factory=asyncio.Event)


class RedisBus:
    """A `Bus` over one Redis server. Make it with `RedisBus.open`.

    All subscriptions of a process share one connection, so a hundred readers of one channel cost Redis one delivery.
    The library's own reconnecting is off: it would resubscribe without a word, and losses must be told.
    """

    def __init__(self, client: redis.Redis, *, max_messages: int, max_bytes: int) -> None:
        self._client = client
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._channels: dict[str, _Channel] = {}
        self._unconfirmed: Counter[str] = Counter()
        self._connection: Any = None
        self._sending = asyncio.Lock()
        self._heard = False

    @classmethod
    @asynccontextmanager
    async def open(
        cls, url: str, *, max_messages: int = MAX_MESSAGES, max_bytes: int = MAX_BYTES
    ) -> AsyncIterator["RedisBus"]:
        """Serve a bus on `url` (`redis://host:port/db`, `rediss://...`, `unix:///path`) while the context is open.

        The server need not be up yet: until it is, publishing and subscribing raise `BusError`.
        """
        client = redis.Redis.from_url(
            url,
            protocol=2,
            socket_connect_timeout=DEADLINE_SECONDS,
            # The deadlines are ours: the library's is `asyncio.wait_for`, which loses a cancellation on Python 3.11.
            socket_timeout=None,
            retry=Retry(NoBackoff(), 0),
            max_connections=64,
        )
        bus = cls(client, max_messages=max_messages, max_bytes=max_bytes)
        tasks = [asyncio.create_task(bus._receive()), asyncio.create_task(bus._heartbeat())]
        try:
            yield bus
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await client.aclose()

    async def publish(self, channel: str, payload: bytes) -> None:
        await self._command(self._client.publish(channel, payload))

    async def count(self, key: str, name: str) -> int:
        async with self._client.pipeline(transaction=True) as commands:
            commands.hincrby(COUNTS + key, name, 1)
            commands.expire(COUNTS + key, COUNTED_SECONDS)
            number, _ = await self._command(commands.execute())
        return int(number)

    async def counted(self, key: str) -> Mapping[str, int]:
        found = await self._command(self._client.hgetall(COUNTS + key))
        return {name.decode(): int(number) for name, number in found.items()}

    async def forget(self, *keys: str) -> None:
        if keys:
            await self._command(self._client.delete(*(COUNTS + key for key in keys)))

    async def ping(self) -> None:
        await self._command(self._client.ping())

    async def _command(self, command: Any) -> Any:
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                return await command
        except (RedisError, OSError, TimeoutError) as error:
            raise BusError(f"redis does not answer: {error}") from error

    @asynccontextmanager
    async def subscribe(self, *channels: str) -> AsyncIterator[Subscription]:
        queue = MessageQueue(max_messages=self._max_messages, max_bytes=self._max_bytes)
        try:
            await self._join(queue, channels)
            yield queue
        finally:
            await self._leave(queue, channels)

    async def _join(self, queue: MessageQueue, channels: tuple[str, ...]) -> None:
        new = [name for name in channels if name not in self._channels]
        for name in channels:
            self._channels.setdefault(name, _Channel()).queues.append(queue)
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                await self._send("SUBSCRIBE", new)
                for name in channels:
                    await self._channels[name].confirmed.wait()
        except TimeoutError as error:
            raise BusError("redis does not answer") from error

    async def _leave(self, queue: MessageQueue, channels: tuple[str, ...]) -> None:
        gone = []
        for name in channels:
            entry = self._channels.get(name)
            if entry is None or queue not in entry.queues:
                continue
            entry.queues.remove(queue)
            if not entry.queues:
                del self._channels[name]
                gone.append(name)
        await self._send("UNSUBSCRIBE", gone)

    async def _send(self, command: str, channels: list[str]) -> None:
        """Send now if connected; if not, connecting subscribes to whatever is wanted by then."""
        async with self._sending:
            if self._connection is None or not channels:
                return
            if command == "SUBSCRIBE":
                self._unconfirmed.update(channels)
            try:
                async with asyncio.timeout(DEADLINE_SECONDS):
                    await self._connection.send_command(command, *channels, check_health=False)
            except (RedisError, OSError, TimeoutError) as error:
                log.warning("bus_send_failed", command=command, error=str(error))
                await self._disconnect()

    async def _receive(self) -> None:
        """Stay connected, for as long as the bus is open."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                connection = await self._connect()
                pause = FIRST_PAUSE_SECONDS
                while True:
                    self._dispatch(await connection.read_response())
                    # What is buffered is read without waiting; readers must get their turn in between.
                    await asyncio.sleep(0)
            except (RedisError, OSError, TimeoutError) as error:
                log.warning("bus_connection_lost", error=str(error), retry_seconds=pause)
            finally:
                async with self._sending:
                    await self._disconnect()
            self._tell_loss()
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    async def _connect(self) -> Any:
        connection: Any = self._client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        async with self._sending:
            self._unconfirmed.clear()
            async with asyncio.timeout(DEADLINE_SECONDS):
                try:
                    await connection.connect()
                    if self._channels:
                        await connection.send_command("SUBSCRIBE", *self._channels, check_health=False)
                except BaseException:
                    await connection.disconnect(nowait=True)
                    raise
            self._unconfirmed.update(list(self._channels))
            self._connection = connection
        return connection

    async def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.disconnect(nowait=True)

    def _dispatch(self, response: Any) -> None:
        self._heard = True
        if not isinstance(response, list):
            return  # the answer to a heartbeat while nothing is subscribed
        kind, name = response[0], response[1].decode()
        entry = self._channels.get(name)
        if kind == b"subscribe":
            self._unconfirmed[name] -= 1
            if entry is not None and self._unconfirmed[name] <= 0:
                del self._unconfirmed[name]
                entry.confirmed.set()
        elif kind == b"message" and entry is not None:
            message = Message(name, response[2])
            for queue in entry.queues:
                queue.offer(message)

    def _tell_loss(self) -> None:
        for entry in self._channels.values():
            entry.confirmed.clear()
        for queue in {id(queue): queue for entry in self._channels.values() for queue in entry.queues}.values():
            queue.note_loss()

    async def _heartbeat(self) -> None:
        """Drop a connection on which nothing comes back any more; receiving then connects again."""
        while True:
            self._heard = False
            async with self._sending:
                connection = self._connection
                if connection is not None:
                    with contextlib.suppress(RedisError, OSError, TimeoutError):
                        async with asyncio.timeout(DEADLINE_SECONDS):
                            await connection.send_command("PING", check_health=False)
            await asyncio.sleep(HEARTBEAT_SECONDS)
            if not self._heard and connection is not None and connection is self._connection:
                async with self._sending:
                    log.warning("bus_connection_silent", seconds=HEARTBEAT_SECONDS)
                    await self._disconnect()
