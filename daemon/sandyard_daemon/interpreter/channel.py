"""What one execution tells its client: messages in order, bounded, and how the connection is to be closed."""

import asyncio
import json
from collections import deque
from collections.abc import Callable

HIGH_WATER = 256 << 10
"""Characters waiting for the client at which the worker's output is read no more."""
LOW_WATER = 64 << 10


class Channel:
    """One writer, one reader. A client that left makes it swallow everything."""

    def __init__(self) -> None:
        self._messages: deque[str] = deque()
        self._size = 0
        self._changed = asyncio.Event()
        self._is_abandoned = False
        self.ending: tuple[int, str] | None = None
        """Close code and reason, once the execution is over."""
        self.room: Callable[[], None] | None = None
        """Called when a full channel has room again."""

    @property
    def is_full(self) -> bool:
        """Whether the client is behind."""
        return self._size > HIGH_WATER

    def output(self, stream: str, text: str) -> None:
        """A piece of `stdout` or `stderr`."""
        self._put(type=stream, text=text)

    def error(self, name: str, value: str, traceback: str = "") -> None:
        """An exception of the code, or what made it impossible."""
        self._put(type="error", name=name, value=value, traceback=traceback)

    def control(self, text: str) -> None:
        """`completed` or `interrupted`."""
        self._put(type="control", text=text)

    def end(self, code: int, reason: str = "") -> None:
        """No message follows."""
        if self.ending is None:
            self.ending = (code, reason)
            self._changed.set()

    def abandon(self) -> None:
        """The client left."""
        self._is_abandoned = True
        self._messages.clear()
        self._size = 0
        self._changed.set()
        self._make_room()

    async def next(self) -> str | None:
        """The next message; `None` when there will be none."""
        while not self._messages:
            if self.ending is not None or self._is_abandoned:
                return None
            self._changed.clear()
            await self._changed.wait()
        message = self._messages.popleft()
        self._size -= len(message)
        if self._size < LOW_WATER:
            self._make_room()
        return message

    def _put(self, **fields: str) -> None:
        if self._is_abandoned or self.ending is not None:
            return
        # Every client finds every key.
        message = json.dumps({"type": "", "text": "", "name": "", "value": "", "traceback": "", **fields})
        self._messages.append(message)
        self._size += len(message)
        self._changed.set()

    def _make_room(self) -> None:
        room, self.room = self.room, None
        if room is not None:
            room()
