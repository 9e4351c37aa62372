"""One follower: backlog from the file, then what the bus brings, gaps filled from the file, up to the end record.

The sequence that `Follower.next` gives rests on offsets alone. The bus only makes it fast; the relay only says how far
the log has come and where it ends; what neither delivered is read from the file.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from sandyard_daemon.wire import EXIT_CODE, LogFrame, LogHead, Stream
from sandyard_proxy.errors import BrokenExchange, DoorUnreachable, LogLost
from sandyard_proxy.follow.live import LiveBuffer, from_offset, join_adjacent, up_to
from sandyard_proxy.follow.source import LogRefused, LogSource
from sandyard_proxy.follow.stats import FollowStats
from sandyard_runner.wire import RelayTick


@dataclass(frozen=True, slots=True)
class Patience:
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


class Feeds(Protocol):
    """What keeps a follower of a running command informed; each runs until its log is over or it is cancelled."""

    async def listen(self, follower: "Follower") -> None:
        """Hand over the frames that the bus brings."""

    async def hold_lease(self, follower: "Follower", source: LogSource, patience: Patience, stats: FollowStats) -> None:
        """Hand over the ticks of the relay."""


class Follower:
    """Gives the log's bytes from `cursor` on, each once and in order. Made by `open_follower`."""

    def __init__(
        self, source: LogSource, cursor: int, limit: int | None, *, stats: FollowStats, patience: Patience
    ) -> None:
        self._source = source
        self._stats = stats
        self._patience = patience
        self.position = cursor
        """Offset of the next byte that `next` gives."""
        self.exit_code: int | None = None
        """Known when the log has ended, unless the end could not say."""
        self._stop = None if limit is None else cursor + limit
        self._end: int | None = None
        self._lost: LogLost | None = None
        self._live = LiveBuffer()
        self._target = cursor  # how far the log is known to have come
        self._due = 0.0  # when what is missing up to there is read from the file
        self._retry_at = 0.0  # before that moment a reading that failed is not repeated
        self._reading: AsyncGenerator[list[LogFrame], None] | None = None
        self._read_from = cursor
        self._failing_since: float | None = None
        self._pause = patience.retry
        self._news = asyncio.Event()

    async def next(self, timeout_seconds: float | None = None) -> list[LogFrame] | None:
        """The next frames, about a megabyte at the most; none after `timeout_seconds`; `None` when the log has ended.

        Raises `LogLost` when the log cannot be followed any more; everything that was there was given before.
        """
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while (last := self._last) is None or self.position < last:
            reading = self._reading
            frames = self._live.take(self.position) if reading is None else await self._read_on(reading)
            if frames:
                return self._deliver(frames)
            if reading is not None:
                continue
            if self._is_behind():
                self._start_reading()
            elif self._lost is not None:
                raise self._lost
            elif not await self._wait(deadline):
                return []
        return None

    async def close(self) -> None:
        """Let go of the file."""
        await self._stop_reading()
        self._stats.bytes_discarded += self._live.discarded_bytes

    # What is known of the log.

    def start(self, head: LogHead, *, live: bool) -> None:
        """Begin with the backlog. A log whose command is over is given whole, with what came after its end record."""
        self._target = max(self._target, head.size)
        if head.end is not None or not live:
            self._finish(head.size, head.exit_code)

    def note_tick(self, tick: RelayTick) -> None:
        """The relay tells how far the log has come, or that it is over."""
        if tick.end is not None:
            self._finish(tick.end, tick.exit_code)
        self._expect(tick.end if tick.end is not None else tick.offset)
        self._news.set()

    def note_frame(self, frame: LogFrame) -> None:
        """The bus brought something."""
        if frame.stream is Stream.END:
            self._note_end(frame)
        elif frame.payload:
            self._stats.bytes_from_bus += len(frame.payload)
            self._live.offer(frame)
        self._news.set()

    def note_lost(self, reason: str) -> None:
        """Nothing more will come."""
        if self._lost is None:
            self._lost = LogLost(reason)
        self._news.set()

    @property
    def is_over(self) -> bool:
        """Whether the end of the log is known, or that it is lost."""
        return self._end is not None or self._lost is not None

    @property
    def _last(self) -> int | None:
        """Where to stop, as far as that is known: the log's end or the follower's own limit."""
        if self._end is None or self._stop is None:
            return self._stop if self._end is None else self._end
        return min(self._end, self._stop)

    def _finish(self, end: int, exit_code: int | None) -> None:
        if self._end is None:
            self._end = end
            self.exit_code = exit_code

    def _note_end(self, frame: LogFrame) -> None:
        exit_code = EXIT_CODE.unpack(frame.payload)[0] if len(frame.payload) == EXIT_CODE.size else None
        self._finish(frame.offset, exit_code)
        self._expect(frame.offset)

    def _expect(self, offset: int) -> None:
        if offset <= self.position:
            return
        patience = self._patience.end if self._end is not None else self._patience.bus
        due = time.monotonic() + patience
        self._due = due if self._target <= self.position else min(self._due, due)
        self._target = max(self._target, offset)

    # What is delivered.

    def _deliver(self, frames: list[LogFrame]) -> list[LogFrame] | None:
        """Account for frames that continue at the position; nothing beyond the end passes."""
        if (last := self._last) is not None:
            frames = [kept for frame in frames if (kept := up_to(frame, last)) is not None]
        self.position += sum(len(frame.payload) for frame in frames)
        self._stats.bytes_out += sum(len(frame.payload) for frame in frames)
        return join_adjacent(frames) or None

    def _is_behind(self) -> bool:
        now = time.monotonic()
        return now >= self._retry_at and (self._gap > 0 or (self._target > self.position and now >= self._due))

    @property
    def _gap(self) -> int:
        """Bytes missing before the next live frame."""
        ahead = self._live.next_offset
        return 0 if ahead is None else max(0, ahead - self.position)

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
            self.note_lost("the session of this log was deleted")
        except DoorUnreachable as error:
            await self._stop_reading()
            self._judge_reading(error.message)
        return []

    def _from_file(self, frames: list[LogFrame]) -> list[LogFrame]:
        fresh: list[LogFrame] = []
        position = self.position
        for frame in frames:
            if frame.stream is Stream.END:
                self._note_end(frame)
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
            self._failing_since, self._pause = None, self._patience.retry
            return
        if self._failing_since is None:
            self._failing_since = now
        if now - self._failing_since > self._patience.give_up:
            self.note_lost(failure)
        self._retry_at = now + self._pause
        self._pause = min(self._pause * 2, self._patience.longest_retry)

    async def _stop_reading(self) -> None:
        if self._reading is not None:
            reading, self._reading = self._reading, None
            await reading.aclose()

    async def _wait(self, deadline: float | None) -> bool:
        """Wait for news, at the longest until something missing is due; `False` when `deadline` came first."""
        moments = [] if deadline is None else [deadline]
        if self._gap or self._target > self.position:
            moments.append(max(self._retry_at, 0.0 if self._gap else self._due))
        seconds = max(0.0, min(moments) - time.monotonic()) if moments else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
        self._news.clear()
        return deadline is None or time.monotonic() < deadline


@asynccontextmanager
async def open_follower(
    source: LogSource,
    cursor: int,
    feeds: Feeds | None,
    *,
    limit: int | None = None,
    stats: FollowStats,
    patience: Patience | None = None,
) -> AsyncIterator[Follower]:
    """A follower of one log from offset `cursor` on, for `limit` bytes at the most.

    Without `feeds` it ends at the log's current end. With them, the open relay request is the lease that keeps the log
    on the bus while its command runs. Raises `LogRefused` and `DoorUnreachable` on entering.
    """
    follower = Follower(source, cursor, limit, stats=stats, patience=patience or Patience())
    head = await source.head()
    tasks: list[asyncio.Task[None]] = []
    if head.end is None and feeds is not None:
        tasks = [
            asyncio.create_task(feeds.listen(follower)),
            asyncio.create_task(feeds.hold_lease(follower, source, patience or Patience(), stats)),
        ]
    follower.start(head, live=feeds is not None)
    stats.followers += 1
    try:
        yield follower
    finally:
        stats.followers -= 1
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await follower.close()
