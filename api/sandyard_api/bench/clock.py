"""The virtual clock's hand: freeze, set, advance and release, with every timer in the order it would have had.

The state is a row that each replica reads at its start, and a hint on the bus tells the others of a change.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import msgspec
import structlog
from sqlalchemy import exists, select

from sandyard.beside import meanwhile
from sandyard.bus import Bus, BusError
from sandyard.clock import Clock
from sandyard.virtual_clock import ClockState, VirtualClock, machine_of
from sandyard_api.api_keys.service import ApiKeys
from sandyard_api.bench.models import BenchState
from sandyard_api.database import Database
from sandyard_api.errors import BadRequest, Conflict
from sandyard_api.jobs.models import JobRow, JobState
from sandyard_api.jobs.wire import CHANNEL_KEYS, CHANNEL_ROUTES
from sandyard_api.sandboxes.models import Sandbox
from sandyard_api.sandboxes.states import Desired, Observed
from sandyard_api.snapshots.work import SnapshotWork
from sandyard_api.timers import Timers
from sandyard_api.wakeups import Wakeups

CHANNEL_CLOCK = "clock"
"""Hint between replicas: the clock was moved. Payload: `ClockState` as JSON."""
NAME = "clock"
SETTLE_SECONDS = 60.0
"""How long one step waits for the work that the step before it caused."""
RECHECK_SECONDS = 0.5
MAX_STEPS = 100_000
MAX_MOVE = timedelta(days=36600)

log = structlog.get_logger()


class Moved(msgspec.Struct, frozen=True):
    """What a move of the clock did."""

    steps: int
    """Moments at which something was due."""


class ClockControl:
    """Moves the clock of the whole installation. One move at a time."""

    def __init__(
        self,
        database: Database,
        bus: Bus,
        clock: Clock,
        *,
        timers: Timers,
        snapshots: SnapshotWork,
        changes: Wakeups,
        keys: ApiKeys,
    ) -> None:
        self._database = database
        self._bus = bus
        self._clock = clock
        self._timers = timers
        self._snapshots = snapshots
        self._changes = changes
        self._keys = keys
        self._moving = asyncio.Lock()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Take over the kept state, and hear other replicas' moves for as long as the block lasts."""
        async with self._bus.subscribe(CHANNEL_CLOCK) as subscription:
            async with self._database.reading() as db:
                row = await db.get(BenchState, NAME)
            if row is not None:
                self._virtual.state = msgspec.convert(row.value, ClockState)

            async def relay() -> None:
                async for message in subscription:
                    self._virtual.state = msgspec.json.decode(message.payload, type=ClockState)
                    self._keys.forget()

            async with meanwhile(relay(), name="clock"):
                yield

    @property
    def state(self) -> ClockState:
        """Where it stands."""
        return self._virtual.state

    def now(self) -> tuple[datetime, datetime]:
        """Virtual time and the machine's."""
        return self._clock.now(), machine_of(self._clock).now()

    async def freeze(self, at: datetime | None) -> Moved:
        """Stand still, now or at that moment. Raises `BadRequest` for a moment that has gone by."""
        async with self._moving:
            return await self._move(at, stay=True)

    async def set(self, at: datetime) -> Moved:
        """Go to that moment through all that is due before it. Frozen stays frozen; else it runs on from there."""
        async with self._moving:
            return await self._move(at)

    async def advance(self, seconds: float) -> Moved:
        """`set` relative to now. Raises `BadRequest` for less than nothing and for more than a century."""
        async with self._moving:
            if not 0 <= seconds <= MAX_MOVE.total_seconds():
                raise BadRequest(f"seconds must be from 0 to {MAX_MOVE.total_seconds():.0f}")
            return await self._move(self._clock.now() + timedelta(seconds=seconds))

    async def run_until_idle(self) -> Moved:
        """Go on until no timer is left that would fire within a century."""
        async with self._moving:
            was_frozen = self.state.frozen_at is not None
            self._virtual.freeze()
            moved = await self._walk(self._clock.now() + MAX_MOVE)
            await self._rest(was_frozen=was_frozen)
            return moved

    async def release(self) -> None:
        """Be the machine's time again. What was due in a future that is taken back stays done."""
        async with self._moving:
            self._virtual.release()
            await self._keep()

    @property
    def _virtual(self) -> VirtualClock:
        if not isinstance(self._clock, VirtualClock):
            raise BadRequest("this Sandyard runs on a clock that cannot be moved")
        return self._clock

    async def _move(self, at: datetime | None, *, stay: bool = False) -> Moved:
        before = self.state
        was_frozen = stay or before.frozen_at is not None
        self._virtual.freeze()
        try:
            return await self._go_to(at or self._clock.now())
        except BadRequest:
            self._virtual.state = before
            raise
        finally:
            if self.state is not before:
                await self._rest(was_frozen=was_frozen)

    async def _rest(self, *, was_frozen: bool) -> None:
        if not was_frozen:
            self._virtual.run_from(self._clock.now())
        await self._keep()

    async def _go_to(self, at: datetime) -> Moved:
        now = self._clock.now()
        if at < now:
            raise BadRequest(f"the clock only goes forward: it is {now.isoformat()}; `release` leads back to real time")
        if at - now > MAX_MOVE:
            raise BadRequest(f"at the most {MAX_MOVE.days} days at once")
        moved = await self._walk(at)
        self._virtual.freeze(at)
        await self._timers.look()
        await self._settle()
        return moved

    async def _walk(self, until: datetime) -> Moved:
        """From one moment at which something is due to the next; the work of each ends before the next begins."""
        steps = 0
        await self._settle()
        await self._timers.look()
        await self._settle()
        while (due := await self._next_due()) is not None and due <= until:
            if steps >= MAX_STEPS:
                raise Conflict(f"gave up after {MAX_STEPS} steps, at {self._clock.now().isoformat()}")
            self._virtual.freeze(due)
            await self._timers.look()
            await self._settle()
            steps += 1
        return Moved(steps)

    async def _next_due(self) -> datetime | None:
        now = self._clock.now()
        async with self._database.reading() as db:
            rows = await db.scalars(select(Sandbox).where(Sandbox.desired != Desired.DESTROYED))
            times = [at for row in rows for at in due_times(row) if at > now]
        unused = await self._snapshots.next_due(now)
        return min(times + ([unused] if unused is not None else []), default=None)

    async def _settle(self) -> None:
        """Wait until no work is open. Raises `Conflict` when some stays open for long."""
        deadline = self._clock.monotonic() + SETTLE_SECONDS
        while busy := await self._busy():
            with self._changes.watch(*busy) as watch:
                left = deadline - self._clock.monotonic()
                if left <= 0:
                    raise Conflict(f"what is still changing holds the clock: {', '.join(busy[:5])}")
                if await self._busy() == busy:
                    await watch.wait(min(left, RECHECK_SECONDS))

    async def _busy(self) -> list[str]:
        async with self._database.reading() as db:
            # Pools are filled by the machine's time, and all the time; nobody waits for that.
            users = exists().where(Sandbox.id == JobRow.sandbox_id, Sandbox.warm_pool_id.is_(None))
            working = list(await db.scalars(select(JobRow.sandbox_id).where(JobRow.state == JobState.OPEN, users)))
        return working + await self._snapshots.being_made()

    async def _keep(self) -> None:
        """Store the state, tell the other replicas, and forget what expires by the clock."""
        async with self._database.transaction() as db:
            row = await db.get(BenchState, NAME)
            value = msgspec.to_builtins(self.state)
            if row is None:
                db.add(BenchState(name=NAME, value=value))
            else:
                row.value = value
        self._keys.forget()
        try:
            await self._bus.publish(CHANNEL_CLOCK, msgspec.json.encode(self.state))
            await self._bus.publish(CHANNEL_KEYS, b"")
            await self._bus.publish(CHANNEL_ROUTES, b"")
        except BusError as error:
            log.warning("hint_lost", channel=CHANNEL_CLOCK, error=str(error))


def due_times(row: Sandbox) -> list[datetime]:
    """When something may be due for that sandbox; a moment too many costs one look and nothing else."""
    settings = (row.auto_stop_minutes, row.auto_pause_minutes, row.auto_archive_minutes, row.auto_delete_minutes)
    minutes = set(settings) if _rests(row) else set()
    times = [row.last_activity_at + timedelta(minutes=each) for each in minutes if each > 0]
    return times + ([row.auto_destroy_at] if row.auto_destroy_at is not None else [])


def _rests(row: Sandbox) -> bool:
    return row.observed not in (Observed.ERROR, Observed.BUILD_FAILED)
