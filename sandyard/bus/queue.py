"""The bounded queue behind every subscription: overflow drops what is queued, so that nobody waits for a reader."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator

from sandyard.bus.contract import Message

MAX_MESSAGES = 4096
MAX_BYTES = 16 << 20


class MessageQueue:
    """A `Subscription`. One reader at a time.

    Overflow drops everything queued, not the oldest message alone: a reader who fell behind has a gap anyway, and one
    long gap is cheaper to fill than many short ones.
    """

    def __init__(self, *, max_messages: int = MAX_MESSAGES, max_bytes: int = MAX_BYTES) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._messages: deque[Message] = deque()
        self._bytes = 0
        self._lost = 0
        self._waiter: asyncio.Future[None] | None = None

    @property
    def lost(self) -> int:
        return self._lost

    def offer(self, message: Message) -> None:
        """Queue `message`, dropping what is queued when there is no room."""
        if len(self._messages) >= self._max_messages or self._bytes + len(message.payload) > self._max_bytes:
            self._lost += len(self._messages)
            self._messages.clear()
            self._bytes = 0
        self._messages.append(message)
        self._bytes += len(message.payload)
        self._wake()

    def note_loss(self) -> None:
        """Count one loss that left no trace in the queue, such as a lost connection, and let the reader see it."""
        self._lost += 1
        self._wake()

    async def next(self, timeout_seconds: float | None = None) -> Message | None:
        """See `Subscription.next`."""
        if not self._messages:
            await self._wait(timeout_seconds)
        if not self._messages:
            return None
        message = self._messages.popleft()
        self._bytes -= len(message.payload)
        return message

    async def __aiter__(self) -> AsyncIterator[Message]:
        while True:
            message = await self.next()
            if message is not None:
                yield message

    async def _wait(self, timeout_seconds: float | None) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_seconds):
                    await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
