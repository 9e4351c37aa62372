"""A follower gives every byte once and in order, whatever bus, relay and file reads do in between."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandyard_daemon.wire import LogFrame, LogHead, Stream
from sandyard_proxy.errors import DoorUnreachable, LogLost
from sandyard_proxy.follow.engine import Follower, open_follower
from sandyard_proxy.follow.hub import Hubs, LogHub, Patience
from sandyard_proxy.follow.source import LogRefused, LogSource
from sandyard_proxy.follow.stats import FollowStats
from sandyard_runner.wire import RelayTick
from tests.proxy.doubles import LogFile

HASTY = Patience(bus=0.004, end=0.001, retry=0.001, longest_retry=0.004, give_up=60.0)


def dice_of(seed: int) -> random.Random:
    """A dice that falls the same way each time."""
    return random.Random(seed)  # noqa: S311  repeatable on purpose


class FlakyLog:
    """A log whose reads fail, end early, or come in pieces of odd sizes, as a seeded dice wants."""

    def __init__(self, log: LogFile, dice: random.Random, failures: float) -> None:
        self._log = log
        self._dice = dice
        self._failures = failures
        self.reads = 0

    async def head(self) -> LogHead:
        return self._log.head()

    async def read(self, cursor: int, limit: int | None = None) -> AsyncGenerator[list[LogFrame], None]:
        self.reads += 1
        await asyncio.sleep(0)
        if self._dice.random() < self._failures:
            raise DoorUnreachable("the door is shut for a moment")
        for frame in self._log.since(cursor, limit):
            if self._dice.random() < self._failures:
                raise DoorUnreachable("the door was shut within an answer")
            yield [frame]
            await asyncio.sleep(0)


class LossyFeeds:
    """What a bus and a relay tell of a log, with losses, repetitions, strange order and late ticks."""

    def __init__(self, log: LogFile, dice: random.Random, losses: float) -> None:
        self._log = log
        self._dice = dice
        self._losses = losses
        self._late: list[LogFrame] = []
        self.hub: LogHub | None = None

    async def listen(self, hub: LogHub) -> None:
        self.hub = hub
        await asyncio.Event().wait()

    async def hold_lease(self, hub: LogHub) -> None:
        while True:
            hub.note_tick(RelayTick(self._log.size, self._log.end, self._log.exit_code))
            if hub.is_over:
                return
            await asyncio.sleep(0.003)

    def bring(self, frame: LogFrame) -> None:
        """One frame on its way over the bus."""
        fate = self._dice.random()
        brought = [] if fate < self._losses else [frame]
        if fate > 1 - self._losses / 2:
            brought = [frame, frame]
        elif fate > 1 - self._losses:
            self._late.append(frame)
            brought = []
        elif self._late and fate > 1 - 2 * self._losses:
            brought += [self._late.pop(self._dice.randrange(len(self._late)))]
        for one in brought:
            if self.hub is not None:
                self.hub.note_frame(one)


async def collect(follower: Follower, dice: random.Random) -> list[LogFrame]:
    """Everything, by a reader who pauses now and then."""
    frames: list[LogFrame] = []
    while (batch := await follower.next(0.01)) is not None:
        frames += batch
        if dice.random() < 0.2:
            await asyncio.sleep(0.002)
    return frames


def by_byte(frames: list[LogFrame], start: int = 0) -> list[tuple[Stream, int]]:
    """Stream and value of each byte; fails where offsets do not continue."""
    flat: list[tuple[Stream, int]] = []
    for frame in frames:
        assert frame.offset == start + len(flat)
        flat += [(frame.stream, byte) for byte in frame.payload]
    return flat


async def run_once(seed: int, *, losses: float, failures: float, cursor: int, early: int, followers: int) -> None:
    dice = dice_of(seed)
    log = LogFile()
    streams = (Stream.STDOUT, Stream.STDERR)
    for _ in range(early):
        log.append(dice.choice(streams), dice.randbytes(dice.randrange(1, 30)))
    feeds = LossyFeeds(log, dice, losses)
    stats = FollowStats()

    async def write() -> None:
        for _ in range(60):
            feeds.bring(log.append(dice.choice(streams), dice.randbytes(dice.randrange(1, 30))))
            if dice.random() < 0.5:
                await asyncio.sleep(0)
        log.finish(7)
        log.append(Stream.STDOUT, b"from a background child")  # a runner's tail ends before it

    async with asyncio.timeout(60):
        source = FlakyLog(log, dice, failures)
        async with Hubs(stats, HASTY).join("log", lambda: feeds) as hub:
            writer = asyncio.create_task(write())
            given = await asyncio.gather(*[follow(source, hub, cursor, dice_of(seed + n)) for n in range(followers)])
            await writer
    assert log.end is not None
    everything = by_byte(log.frames)
    for frames, exit_code in given:
        flat = by_byte(frames, cursor)
        assert flat == everything[cursor : cursor + len(flat)]
        assert cursor + len(flat) >= log.end
        assert cursor >= log.end or exit_code == 7
    assert stats.bytes_out == sum(len(by_byte(frames, cursor)) for frames, _ in given)
    assert stats.followers == 0


async def follow(source: LogSource, hub: LogHub, cursor: int, dice: random.Random) -> tuple[list[LogFrame], int | None]:
    """One of several followers of a log."""

    @asynccontextmanager
    async def join() -> AsyncIterator[LogHub]:
        yield hub

    async with open_follower(source, cursor, join, stats=hub.stats) as follower:
        return await collect(follower, dice), follower.exit_code


@settings(max_examples=60)
@given(
    seed=st.integers(0, 1 << 32),
    losses=st.sampled_from([0.0, 0.1, 0.4, 1.0]),
    failures=st.sampled_from([0.0, 0.1, 0.4]),
    cursor=st.integers(0, 400),
    early=st.integers(0, 20),
    followers=st.integers(1, 3),
)
def test_every_byte_comes_once_and_in_order(
    seed: int, losses: float, failures: float, cursor: int, early: int, followers: int
) -> None:
    asyncio.run(run_once(seed, losses=losses, failures=failures, cursor=cursor, early=early, followers=followers))


class Silent:
    """Neither bus nor relay say anything by themselves; the test does, through the hub."""

    def __init__(self, patience: Patience | None = None) -> None:
        self.stats = FollowStats()
        self.hub = LogHub(self.stats, patience or Patience())
        self.joined = False

    @asynccontextmanager
    async def join(self) -> AsyncIterator[LogHub]:
        """The hub, for one follower."""
        self.joined = True
        yield self.hub

    def follow(
        self, source: LogSource, cursor: int = 0, limit: int | None = None
    ) -> AbstractAsyncContextManager[Follower]:
        """A follower who joins."""
        return open_follower(source, cursor, self.join, limit=limit, stats=self.stats)


def steady(log: LogFile) -> FlakyLog:
    """A log whose reads never fail."""
    return FlakyLog(log, dice_of(0), 0.0)


async def test_a_finished_log_is_given_whole_without_bus_or_relay() -> None:
    log = LogFile()
    log.append(Stream.STDOUT, b"all of it")
    log.finish(3)
    log.append(Stream.STDERR, b" and what a child wrote later")
    silent = Silent()
    async with silent.follow(steady(log)) as follower:
        frames = await collect(follower, dice_of(0))
    assert b"".join(frame.payload for frame in frames) == b"all of it and what a child wrote later"
    assert follower.exit_code == 3
    assert not silent.joined


async def test_a_live_follower_stops_at_the_end_record() -> None:
    log = LogFile()
    silent = Silent()
    async with silent.follow(steady(log), 0) as follower:
        silent.hub.note_frame(log.append(Stream.STDOUT, b"mine"))
        log.finish()
        silent.hub.note_frame(log.append(Stream.STDOUT, b"a child's"))
        silent.hub.note_frame(log.end_record())
        frames = await collect(follower, dice_of(0))
    assert b"".join(frame.payload for frame in frames) == b"mine"


async def test_a_frame_that_reaches_beyond_the_end_is_cut_there() -> None:
    log = LogFile()
    silent = Silent()
    async with silent.follow(steady(log), 0) as follower:
        silent.hub.note_tick(RelayTick(4, end=4, exit_code=0))
        silent.hub.note_frame(LogFrame(0, Stream.STDOUT, b"mine and a child's"))
        frames = await collect(follower, dice_of(0))
    assert b"".join(frame.payload for frame in frames) == b"mine"


async def test_bytes_that_only_a_tick_tells_of_are_read_from_the_file() -> None:
    log = LogFile()
    silent = Silent(HASTY)
    async with silent.follow(steady(log)) as follower:
        log.append(Stream.STDERR, b"never on the bus")
        silent.hub.note_tick(RelayTick(log.size))
        async with asyncio.timeout(30):
            frames = await follower.next()
    assert frames == [LogFrame(0, Stream.STDERR, b"never on the bus")]
    assert silent.stats.bytes_from_file == 16


async def test_a_tick_waits_for_the_bus_before_the_file_is_read() -> None:
    log = LogFile()
    source = steady(log)
    silent = Silent(Patience(bus=60))
    async with silent.follow(source, 0) as follower:
        frame = log.append(Stream.STDOUT, b"on its way")
        silent.hub.note_tick(RelayTick(log.size))
        assert await follower.next(0.01) == []
        silent.hub.note_frame(frame)
        assert await follower.next(30) == [frame]
    assert source.reads == 0


async def test_a_gap_is_filled_at_once_and_only_the_gap() -> None:
    log = LogFile()
    silent = Silent(Patience(bus=60))
    async with silent.follow(steady(log)) as follower:
        log.append(Stream.STDOUT, b"lost ")
        silent.hub.note_frame(log.append(Stream.STDOUT, b"brought"))
        async with asyncio.timeout(30):
            frames = [frame for _ in range(2) for frame in await follower.next() or []]
    assert b"".join(frame.payload for frame in frames) == b"lost brought"
    assert (silent.stats.gaps_filled, silent.stats.bytes_from_file) == (1, 5)


async def test_a_slow_follower_holds_little_and_reads_on_from_the_file() -> None:
    log = LogFile()
    silent = Silent(HASTY)
    async with silent.follow(steady(log)) as follower:
        for number in range(64):
            silent.hub.note_frame(log.append(Stream.STDOUT, bytes([number]) * (1 << 18)))
        log.finish()
        silent.hub.note_frame(log.end_record())
        frames = await collect(follower, dice_of(0))
    assert b"".join(frame.payload for frame in frames) == log.text()
    assert silent.stats.bytes_from_file > 0


async def test_the_end_comes_fast_even_when_the_last_bytes_were_lost() -> None:
    log = LogFile()
    silent = Silent(Patience(bus=60.0))
    async with silent.follow(steady(log), 0) as follower:
        log.append(Stream.STDOUT, b"last words, lost on the bus")
        log.finish(1)
        silent.hub.note_tick(RelayTick(log.size, log.end, 1))
        frames = await asyncio.wait_for(collect(follower, dice_of(1)), 30)
    assert b"".join(frame.payload for frame in frames) == log.text()


async def test_a_limit_ends_the_log_after_so_many_bytes() -> None:
    log = LogFile()
    log.append(Stream.STDOUT, b"0123456789")
    async with Silent().follow(steady(log), 2, limit=5) as follower:
        frames = await collect(follower, dice_of(0))
    assert frames == [LogFrame(2, Stream.STDOUT, b"23456")]


async def test_without_feeds_the_log_ends_where_it_is_now() -> None:
    log = LogFile()
    log.append(Stream.STDOUT, b"so far")
    async with open_follower(steady(log), 0, None, stats=FollowStats()) as follower:
        log.append(Stream.STDOUT, b" and later")
        frames = await collect(follower, dice_of(0))
    assert b"".join(frame.payload for frame in frames) == b"so far"


async def test_a_cursor_ahead_of_the_log_waits_for_it() -> None:
    log = LogFile()
    log.append(Stream.STDOUT, b"0123")
    silent = Silent(HASTY)
    async with silent.follow(steady(log), 6) as follower:
        silent.hub.note_frame(log.append(Stream.STDOUT, b"4567"))
        assert await follower.next(30) == [LogFrame(6, Stream.STDOUT, b"67")]


async def test_what_is_there_comes_before_the_loss_is_told() -> None:
    log = LogFile()
    log.append(Stream.STDOUT, b"there")
    silent = Silent()
    async with silent.follow(steady(log), 0) as follower:
        silent.hub.note_lost("the sandbox was deleted")
        assert await follower.next() == [LogFrame(0, Stream.STDOUT, b"there")]
        with pytest.raises(LogLost, match="deleted"):
            await follower.next()


class DeletedLog(FlakyLog):
    """Its session goes away after the first look."""

    async def read(self, cursor: int, limit: int | None = None) -> AsyncGenerator[list[LogFrame], None]:
        raise LogRefused(404, b"{}")
        yield []


async def test_a_deleted_session_is_a_loss_with_a_reason() -> None:
    log = LogFile()
    log.append(Stream.STDOUT, b"x")
    source = DeletedLog(log, dice_of(0), 0.0)
    silent = Silent()
    async with silent.follow(source, 0) as follower:
        with pytest.raises(LogLost, match="session"):
            await follower.next()


class AskedTime:
    """Time that goes on by being asked for: a machine that stands still for a moment uses up nobody's patience."""

    def __init__(self) -> None:
        self._now = 0.0

    def monotonic(self) -> float:
        self._now += 0.001
        return self._now


async def test_a_daemon_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandyard_proxy.follow.engine.time", AskedTime())
    log = LogFile()
    log.append(Stream.STDOUT, b"x")
    source = FlakyLog(log, dice_of(0), 1.0)
    patience = Patience(retry=0.001, longest_retry=0.005, give_up=0.05)
    silent = Silent(patience)
    async with silent.follow(source, 0) as follower:
        async with asyncio.timeout(30):
            with pytest.raises(LogLost, match="shut"):
                await follower.next()
    assert source.reads > 3


async def test_a_log_shorter_than_told_is_given_up() -> None:
    patience = Patience(bus=0, retry=0.001, longest_retry=0.005, give_up=0.05)
    silent = Silent(patience)
    async with silent.follow(steady(LogFile()), 0) as follower:
        silent.hub.note_tick(RelayTick(100))
        async with asyncio.timeout(30):
            with pytest.raises(LogLost, match="shorter"):
                await follower.next()
