"""One follower: backlog from the file, then what the bus brings, gaps filled from the file, up to the end record.

The sequence that `Follower.next` gives rests on offsets alone. The bus only makes it fast; the relay only says how far
the log has come and where it ends; what neither delivered is read from the file.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from sandyard_daemon.wire import LogFrame, LogHead, Stream
from sandyard_proxy.errors import BrokenExchange, DoorUnreachable, LogLost
from sandyard_proxy.follow.hub import LogHub, Patience
from sandyard_proxy.follow.live import from_offset, join_adjacent, up_to
from sandyard_proxy.follow.source import LogRefused, LogSource
from sandyard_proxy.follow.stats import FollowStats
from sandyard_runner.wire import RelayTick

JoinHub = Callable[[], AbstractAsyncContextManager[LogHub]]
"""Joins those who follow the same log, for the time of the context."""


class Follower:
    """Gives the log's bytes from `cursor` on, each once and in order. Made by `open_follower`."""

    def __init__(self, source: LogSource, hub: LogHub, cursor: int, limit: int | None) -> None:
        self._source = source
        self._hub = hub
        self._stats = hub.stats
        self.position = cursor
        """Offset of the next byte that `next` gives."""
        self._stop = None if limit is None else cursor + limit
        self._backlog = 0  # how far the log had come when the follower came
        self._lost: LogLost | None = None
        self._retry_at = 0.0  # before that moment a reading that failed is not repeated
        self._reading: AsyncGenerator[list[LogFrame], None] | None = None
        self._read_from = cursor
        self._failing_since: float | None = None
        self._pause = hub.patience.retry

    @property
    def exit_code(self) -> int | None:
        """Known when the log has ended, unless the end could not say."""
        return self._hub.exit_code

    def start(self, head: LogHead, *, live: bool) -> None:
        """Begin with the backlog. A log whose command is over is given whole, with what came after its end record."""
        self._backlog = head.size
        if head.end is not None or not live:
            self._hub.note_tick(RelayTick(head.size, head.size, head.exit_code))

    async def next(self, timeout_seconds: float | None = None) -> list[LogFrame] | None:
        """The next frames, about a megabyte at the most; none after `timeout_seconds`; `None` when the log has ended.

        Raises `LogLost` when the log cannot be followed any more; everything that was there was given before.
        """
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while (last := self._last) is None or self.position < last:
            reading = self._reading
            frames = self._hub.live.take(self.position) if reading is None else await self._read_on(reading)
            if frames:
                return self._deliver(frames)
            if reading is not None:
                continue
            if self._is_behind():
                self._start_reading()
            elif (lost := self._lost or self._hub.lost) is not None:
                raise lost
            elif not await self._wait(deadline):
                return []
        return None

    async def gather(self, seconds: float) -> None:
        """Let more come together, for that long at the most; not once the end is known."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hub.over.wait()

    async def close(self) -> None:
        """Let go of the file."""
        await self._stop_reading()

    @property
    def _last(self) -> int | None:
        """Where to stop, as far as that is known: the log's end or the follower's own limit."""
        end = self._hub.end
        if end is None or self._stop is None:
            return self._stop if end is None else end
        return min(end, self._stop)

    def _deliver(self, frames: list[LogFrame]) -> list[LogFrame] | None:
        """Account for frames that continue at the position; nothing beyond the end passes."""
        if (last := self._last) is not None:
            frames = [kept for frame in frames if (kept := up_to(frame, last)) is not None]
        size = sum(len(frame.payload) for frame in frames)
        self.position += size
        self._hub.reached = max(self._hub.reached, self.position)
        self._stats.bytes_out += size
        return join_adjacent(frames) or None

    @property
    def _gap(self) -> int:
        """Bytes missing before the first live one."""
        start = self._hub.live.start
        return 0 if start is None else max(0, start - self.position)

    @property
    def _due(self) -> float | None:
        """When to read from the file (monotonic); `None` when nothing is known to be missing."""
        if self._gap or self.position < self._backlog:
            return self._retry_at
        return max(self._retry_at, self._hub.due) if self.position < self._hub.target else None

    def _is_behind(self) -> bool:
        due = self._due
        return due is not None and time.monotonic() >= due

    # The file.

    def _start_reading(self) -> None:
        gap = self._gap
        if gap:
            self._stats.gaps_filled += 1
        self._read_from = self.position
        self._reading = self._source.read(self.position, gap or None)

    async def _read_on(self, reading: AsyncGenerator[list[LogFrame], None]) -> list[LogFrame]:
        """What the file gives next; empty when that reading is over or gave nothing new."""
        try:
            return self._from_file(await anext(reading))
        except StopAsyncIteration:
            self._reading = None
            self._judge_reading(None if self.position > self._read_from else "the log is shorter than it should be")
        except LogRefused:
            await self._stop_reading()
            self._retry_at = math.inf
            self._lost = LogLost("the session of this log was deleted")
        except DoorUnreachable as error:
            await self._stop_reading()
            self._judge_reading(error.message)
        return []

    def _from_file(self, frames: list[LogFrame]) -> list[LogFrame]:
        fresh: list[LogFrame] = []
        position = self.position
        for frame in frames:
            if frame.stream is Stream.END:
                self._hub.note_end(frame)
            elif (rest := from_offset(frame, position)) is not None:
                if rest.offset > position:
                    raise BrokenExchange("the sandbox's daemon left a gap in a log")
                fresh.append(rest)
                position += len(rest.payload)
        self._stats.bytes_from_file += position - self.position
        return fresh

    def _judge_reading(self, failure: str | None) -> None:
        """A reading that brought nothing, while something is missing, is repeated after a pause, and not for ever."""
        now = time.monotonic()
        if failure is None:
            self._failing_since, self._pause = None, self._hub.patience.retry
            return
        if self._failing_since is None:
            self._failing_since = now
        if now - self._failing_since > self._hub.patience.give_up:
            self._lost = LogLost(failure)
        self._retry_at = now + self._pause
        self._pause = min(self._pause * 2, self._hub.patience.longest_retry)

    async def _stop_reading(self) -> None:
        if self._reading is not None:
            reading, self._reading = self._reading, None
            await reading.aclose()

    async def _wait(self, deadline: float | None) -> bool:
        """Wait for news, at the longest until something missing is due; `False` when `deadline` came first."""
        changed = self._hub.changed
        moments = [moment for moment in (deadline, self._due) if moment is not None]
        seconds = max(0.0, min(moments) - time.monotonic()) if moments else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await changed.wait()
        return deadline is None or time.monotonic() < deadline


@asynccontextmanager
async def open_follower(
    source: LogSource, cursor: int, join: JoinHub | None, *, limit: int | None = None, stats: FollowStats
) -> AsyncIterator[Follower]:
    """A follower of one log from offset `cursor` on, for `limit` bytes at the most.

    Without `join` it ends at the log's current end; with it, a running command's hub is joined for the news of it.
    Raises `LogRefused` and `DoorUnreachable` on entering.
    """
    head = await source.head()
    async with AsyncExitStack() as stack:
        hub = LogHub(stats, Patience())
        if join is not None and head.end is None:
            hub = await stack.enter_async_context(join())
        follower = Follower(source, hub, cursor, limit)
        stack.push_async_callback(follower.close)
        follower.start(head, live=join is not None)
        stats.followers += 1
        try:
            yield follower
        finally:
            stats.followers -= 1
