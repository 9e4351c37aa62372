"""What this proxy knows of one running command's log, shared by all who follow it here: one lease, one subscription."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from typing import Protocol

import msgspec

from sandyard_daemon.wire import EXIT_CODE, LogFrame, Stream
from sandyard_proxy.errors import LogLost
from sandyard_proxy.follow.live import LiveWindow
from sandyard_proxy.follow.stats import FollowStats
from sandyard_runner.wire import RelayTick


class Patience(msgspec.Struct, frozen=True):
    """How long a follower waits before it helps itself, in seconds."""

    bus: float = 0.1
    """After a tick told of bytes that the bus has not brought."""
    end: float = 0.004
    """The same once the command is over: the stream ends within 20 ms of it."""
    retry: float = 0.05
    """Before the first repetition of something that failed; doubles up to `longest_retry`."""
    longest_retry: float = 1.0
    give_up: float = 30.0
    """With relay or daemon away."""


class LogHub:
    """Gathers news of one log. Followers look at it and wait for `changed`."""

    def __init__(self, stats: FollowStats, patience: Patience) -> None:
        self.stats = stats
        self.patience = patience
        self.live = LiveWindow()
        self.target = 0
        """How far the log is known to have come."""
        self.reached = 0
        """How far the furthest follower has come."""
        self.due = 0.0
        """When what is known of and was not brought is to be read from the file (monotonic)."""
        self.end: int | None = None
        """Where the log ends, once its command is over."""
        self.exit_code: int | None = None
        self.lost: LogLost | None = None
        self.changed = asyncio.Event()
        """Set at the next news; then another one takes its place."""
        self.over = asyncio.Event()
        """Set when there is nothing more to learn: the end is known, or the log is lost."""

    @property
    def is_over(self) -> bool:
        """Whether `over` is set."""
        return self.over.is_set()

    def note_tick(self, tick: RelayTick) -> None:
        """The relay tells how far the log has come, or that it is over."""
        if tick.end is not None:
            self._finish(tick.end, tick.exit_code)
        self._expect(tick.end if tick.end is not None else tick.offset)
        self._tell()

    def note_frame(self, frame: LogFrame) -> None:
        """The bus brought something."""
        if frame.stream is Stream.END:
            self.note_end(frame)
            return
        self.stats.bytes_from_bus += len(frame.payload)
        if self.live.add(frame):
            self._tell()

    def note_end(self, frame: LogFrame) -> None:
        """The end record was seen, on the bus or in the file."""
        exit_code = EXIT_CODE.unpack(frame.payload)[0] if len(frame.payload) == EXIT_CODE.size else None
        self._finish(frame.offset, exit_code)
        self._expect(frame.offset)
        self._tell()

    def note_lost(self, reason: str) -> None:
        """Nothing more will come."""
        if self.lost is None:
            self.lost = LogLost(reason)
        self.over.set()
        self._tell()

    def _finish(self, end: int, exit_code: int | None) -> None:
        if self.end is None:
            self.end = end
            self.exit_code = exit_code
        self.over.set()

    def _expect(self, offset: int) -> None:
        """Something up to `offset` exists. The bus has a moment to bring it, counted from the first that is missing."""
        due = time.monotonic() + (self.patience.end if self.end is not None else self.patience.bus)
        self.due = due if self.target <= max(self.reached, self.live.end) else min(self.due, due)
        self.target = max(self.target, offset)

    def _tell(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class Feeds(Protocol):
    """What keeps a hub informed; each runs until its log is over or it is cancelled."""

    async def listen(self, hub: LogHub) -> None:
        """Hand over the frames that the bus brings."""

    async def hold_lease(self, hub: LogHub) -> None:
        """Hand over the ticks of the relay."""


@asynccontextmanager
async def run_hub(feeds: Feeds, stats: FollowStats, patience: Patience) -> AsyncIterator[LogHub]:
    """A hub that is being informed within the block."""
    hub = LogHub(stats, patience)
    tasks = [asyncio.create_task(feeds.listen(hub)), asyncio.create_task(feeds.hold_lease(hub))]
    try:
        yield hub
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Shared(msgspec.Struct):
    """A hub and how many use it; the one who leaves last ends it."""

    hub: LogHub
    owner: asyncio.Task[None]
    leave: asyncio.Event
    users: int = 0


class Hubs:
    """The hubs of all logs that are followed here now."""

    def __init__(self, stats: FollowStats, patience: Patience) -> None:
        self._stats = stats
        self._patience = patience
        self._shared: dict[Hashable, _Shared] = {}

    @asynccontextmanager
    async def join(self, key: Hashable, feeds: Callable[[], Feeds]) -> AsyncIterator[LogHub]:
        """The hub of one log, with others who follow it; one that has heard the last of its log is not shared."""
        shared = self._shared.get(key)
        if shared is None or shared.hub.is_over:
            shared = self._shared[key] = await self._open(feeds())
        shared.users += 1
        try:
            yield shared.hub
        finally:
            shared.users -= 1
            if shared.users == 0:
                if self._shared.get(key) is shared:
                    del self._shared[key]
                shared.leave.set()
                await shared.owner

    async def _open(self, feeds: Feeds) -> _Shared:
        opened: asyncio.Future[LogHub] = asyncio.get_running_loop().create_future()
        leave = asyncio.Event()

        async def own() -> None:
            async with run_hub(feeds, self._stats, self._patience) as hub:
                opened.set_result(hub)
                await leave.wait()

        owner = asyncio.create_task(own())
        return _Shared(await opened, owner, leave)
