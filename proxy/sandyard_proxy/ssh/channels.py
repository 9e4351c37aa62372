"""What every channel of a connection has: a place among a bounded number, and a task that ends with it."""

import asyncio

MAX_CHANNELS = 64
"""Open channels of one connection; OpenSSH's server takes 10 sessions."""


class Channels:
    """The open channels of one connection."""

    def __init__(self) -> None:
        self._open: set[ChannelTask] = set()

    @property
    def is_full(self) -> bool:
        """Whether no more may be opened."""
        return len(self._open) >= MAX_CHANNELS

    def __len__(self) -> int:
        return len(self._open)

    def add(self, channel: "ChannelTask") -> None:
        """Count it until it is discarded."""
        self._open.add(channel)

    def discard(self, channel: "ChannelTask") -> None:
        """It is over; may be repeated."""
        self._open.discard(channel)


class ChannelTask:
    """The work for one channel, cancelled when the channel is lost: nothing else wakes it where no byte flows."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._task: asyncio.Task[None] | None = None
        channels.add(self)

    def adopt(self) -> None:
        """The task that calls is the channel's."""
        self._task = asyncio.current_task()

    def lost(self) -> None:
        """The channel is closed."""
        self._channels.discard(self)
        if self._task is not None:
            self._task.cancel()
