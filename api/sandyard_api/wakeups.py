"""Waiting for a row to change without asking again and again: local events, and hints from other replicas."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import structlog

from sandyard.beside import meanwhile
from sandyard.bus import Bus, BusError
from sandyard.clock import Clock

log = structlog.get_logger()


class Watch:
    """Set when its key was announced since the last wait."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """Somebody announced the key."""
        self._changed.set()

    async def wait(self, seconds: float) -> bool:
        """Whether an announcement came within `seconds` of the clock's time."""
        changed = asyncio.ensure_future(self._changed.wait())
        deadline = asyncio.ensure_future(self._clock.sleep(seconds))
        try:
            await asyncio.wait({changed, deadline}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (changed, deadline):
                task.cancel()
            await asyncio.gather(changed, deadline, return_exceptions=True)
        woken = self._changed.is_set()
        self._changed.clear()
        return woken


class Wakeups:
    """Announces keys on one bus channel and wakes whoever watches them here. A lost hint costs time, nothing else."""

    def __init__(self, bus: Bus, clock: Clock, channel: str) -> None:
        self._bus = bus
        self._clock = clock
        self._channel = channel
        self._watches: defaultdict[str, set[Watch]] = defaultdict(set)

    async def announce(self, key: str) -> None:
        """Wake every watch of `key`, here at once and elsewhere by hint. Call it after the commit."""
        self._wake(key)
        try:
            await self._bus.publish(self._channel, key.encode())
        except BusError as error:
            log.warning("hint_lost", channel=self._channel, error=str(error))

    @contextmanager
    def watch(self, *keys: str) -> Iterator[Watch]:
        """A watch in force from now on: open it, look at the row, then wait."""
        watch = Watch(self._clock)
        for key in keys:
            self._watches[key].add(watch)
        try:
            yield watch
        finally:
            for key in keys:
                self._watches[key].discard(watch)
                if not self._watches[key]:
                    del self._watches[key]

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Hear the other replicas' announcements for as long as the block lasts."""
        async with self._bus.subscribe(self._channel) as subscription:

            async def relay() -> None:
                async for message in subscription:
                    self._wake(message.payload.decode(errors="replace"))

            async with meanwhile(relay(), name=f"wakeups-{self._channel}"):
                yield

    def _wake(self, key: str) -> None:
        for watch in tuple(self._watches.get(key, ())):
            watch.wake()
