"""What every bus offers. The conformance suite is `tests/conformance/test_bus.py`."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec


class BusError(Exception):
    """The bus cannot be reached. Safe to repeat; whoever publishes a hint may also let it go."""


class Message(msgspec.Struct, frozen=True):
    """One message as a subscriber sees it."""

    channel: str
    payload: bytes


class Subscription(Protocol):
    """A bounded queue of messages, filled from the moment the subscription was opened."""

    def __aiter__(self) -> AsyncIterator[Message]: ...

    async def next(self, timeout_seconds: float | None = None) -> Message | None:
        """The next message, or `None` after `timeout_seconds` without one, and when `lost` grew while waiting."""

    @property
    def lost(self) -> int:
        """How often something was lost: each dropped message, and each time that the connection was.

        Zero promises nothing. Whoever keeps what messages told them starts afresh when it grows.
        """


class Bus(Protocol):
    """Publish and subscribe by exact channel name."""

    async def publish(self, channel: str, payload: bytes) -> None:
        """Hand `payload` to whoever is subscribed now. Never waits for a subscriber. Raises `BusError`."""

    def subscribe(self, *channels: str) -> AbstractAsyncContextManager[Subscription]:
        """Open a subscription; on entering it is in force, so nothing published after that is missed for being early.

        Reconnects by itself when the bus went away; what was published meanwhile is lost. Raises `BusError` when it
        cannot be opened at all.
        """

    async def count(self, key: str, name: str) -> int:
        """One more of `name` under `key`, over all who share the bus: each of 1, 2, 3 ... is given once.

        A key that nobody counts under for a day may be forgotten. Raises `BusError`.
        """

    async def counted(self, key: str) -> Mapping[str, int]:
        """`{name: how many there were}` under `key`. Raises `BusError`."""

    async def forget(self, *keys: str) -> None:
        """Forget what was counted under these keys. Raises `BusError`."""

    async def ping(self) -> None:
        """Return when the bus answers. Raises `BusError`."""
