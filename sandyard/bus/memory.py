"""The bus of one process: publishing puts a message into the queue of each subscriber."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from sandyard.bus.contract import Message, Subscription
from sandyard.bus.queue import MAX_BYTES, MAX_MESSAGES, MessageQueue


class MemoryBus:
    """A `Bus` that lives and dies with its process."""

    def __init__(self, *, max_messages: int = MAX_MESSAGES, max_bytes: int = MAX_BYTES) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._queues: dict[str, list[MessageQueue]] = {}
        self._counted: dict[str, Counter[str]] = {}

    async def publish(self, channel: str, payload: bytes) -> None:
        queues = self._queues.get(channel)
        if not queues:
            return
        message = Message(channel, payload)
        for queue in queues:
            queue.offer(message)
        # A publisher that never waits for anything else would fill every queue before a reader ran once.
        await asyncio.sleep(0)

    @asynccontextmanager
    async def subscribe(self, *channels: str) -> AsyncIterator[Subscription]:
        queue = MessageQueue(max_messages=self._max_messages, max_bytes=self._max_bytes)
        for channel in channels:
            self._queues.setdefault(channel, []).append(queue)
        try:
            yield queue
        finally:
            for channel in channels:
                self._leave(channel, queue)

    def _leave(self, channel: str, queue: MessageQueue) -> None:
        queues = self._queues[channel]
        queues.remove(queue)
        if not queues:
            del self._queues[channel]

    async def count(self, key: str, name: str) -> int:
        counts = self._counted.setdefault(key, Counter())
        counts[name] += 1
        return counts[name]

    async def counted(self, key: str) -> Mapping[str, int]:
        return dict(self._counted.get(key, {}))

    async def forget(self, *keys: str) -> None:
        for key in keys:
            self._counted.pop(key, None)

    async def ping(self) -> None:
        return
