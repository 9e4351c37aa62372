"""What happens because time passes: auto-stop, auto-delete, time limits, lost work, old records. One task owns it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import structlog
from sqlalchemy import ColumnElement, and_, delete, exists, or_, select

from sandyard.beside import meanwhile
from sandyard.clock import Clock
from sandyard.virtual_clock import machine_of
from sandyard_api.database import Database
from sandyard_api.errors import ApiError
from sandyard_api.image_registry.clearing import ImageClearing
from sandyard_api.jobs import queue
from sandyard_api.jobs.models import JobRow, JobState
from sandyard_api.moments import is_due
from sandyard_api.sandboxes import moves
from sandyard_api.sandboxes.announcing import Announcer
from sandyard_api.sandboxes.models import Sandbox
from sandyard_api.sandboxes.service import Sandboxes
from sandyard_api.sandboxes.states import (
    RESTING,
    SHOWN,
    TIME_LIMIT_MINUTES,
    WAITING_LIMIT_MINUTES,
    Desired,
    Observed,
    Request,
)
from sandyard_api.snapshots.work import SnapshotWork
from sandyard_api.storage.clearing import ContextClearing
from sandyard_api.volumes.models import Volume

RETRY_DESTROY = timedelta(seconds=30)
TIMEOUT_WORDS = {
    Observed.PENDING: "creating",
    Observed.PENDING_BUILD: "building snapshot on runner",
    Observed.PULLING: "pulling snapshot",
    Observed.BUILDING: "building snapshot on runner",
    Observed.CREATING: "creating",
    Observed.STARTING: "starting",
    Observed.STOPPING: "stopping",
    Observed.PAUSING: "pausing",
    Observed.RESUMING: "resuming",
    Observed.RESIZING: "resizing",
    Observed.SNAPSHOTTING: "snapshotting",
    Observed.ARCHIVING: "archiving",
    Observed.RESTORING: "restoring",
    Observed.FORKING: "forking",
}

log = structlog.get_logger()


class Timers:
    """Looks for what is due. Any number of replicas may look at once: every write is guarded by what it saw."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        sandboxes: Sandboxes,
        announcer: Announcer,
        snapshot_work: SnapshotWork,
        clearing: ContextClearing,
        image_clearing: ImageClearing,
        period_seconds: float,
        destroyed_hours: float,
    ) -> None:
        self._database = database
        self._clock = clock
        self._sandboxes = sandboxes
        self._announcer = announcer
        self._snapshot_work = snapshot_work
        self._clearing = clearing
        self._image_clearing = image_clearing
        self._period_seconds = period_seconds
        self._keep_destroyed = timedelta(hours=destroyed_hours)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look again and again for as long as the block lasts."""
        async with meanwhile(self._run(), name="timers"):
            yield

    async def look(self) -> None:
        """Do all that is due now."""
        now = self._clock.now()
        steps: tuple[Callable[[datetime], Awaitable[None]], ...] = (
            self._find_idle,
            self._pause_idle,
            self._archive_stopped,
            self._delete_stopped,
            self._delete_expired,
            self._fail_late,
            self._fail_unserved,
            self._fail_exhausted,
            self._destroy_again,
            self._forget,
        )
        for step in steps:
            await step(now)
        await self._snapshot_work.look()
        await self._clearing.look()
        await self._image_clearing.look()

    async def _run(self) -> None:
        while True:
            await self._clock.sleep(self._period_seconds)
            try:
                await self.look()
            except Exception:
                # The database may be away for a while; the timers must outlive that.
                log.exception("timers_failed")

    async def _find_idle(self, now: datetime) -> None:
        running = (
            Sandbox.observed == Observed.STARTED,
            Sandbox.desired == Desired.STARTED,
            Sandbox.auto_stop_minutes > 0,
        )
        rows = await self._rows(*running, is_due(Sandbox.last_activity_at, Sandbox.auto_stop_minutes, now))
        await self.stop_idle(rows, now)

    async def stop_idle(self, rows: Sequence[Sandbox], now: datetime) -> None:
        """Stop those that were idle too long, but for any that was used since it was read."""
        for row in rows:
            if row.last_activity_at + timedelta(minutes=row.auto_stop_minutes) <= now:
                await self._ask(row, Request.STOP, f"auto-stop after {row.auto_stop_minutes} min idle")

    async def _pause_idle(self, now: datetime) -> None:
        running = (Sandbox.observed == Observed.STARTED, Sandbox.desired == Desired.STARTED)
        due = is_due(Sandbox.last_activity_at, Sandbox.auto_pause_minutes, now)
        for row in await self._rows(*running, Sandbox.auto_pause_minutes > 0, due):
            if row.last_activity_at + timedelta(minutes=row.auto_pause_minutes) <= now:
                await self._ask(row, Request.PAUSE, f"auto-pause after {row.auto_pause_minutes} min idle")

    async def _archive_stopped(self, now: datetime) -> None:
        stopped = (
            Sandbox.observed == Observed.STOPPED,
            Sandbox.desired == Desired.STOPPED,
            Sandbox.auto_archive_minutes > 0,
            Sandbox.auto_delete_minutes != 0,
        )
        due = is_due(Sandbox.last_activity_at, Sandbox.auto_archive_minutes, now)
        for row in await self._rows(*stopped, due):
            if row.last_activity_at + timedelta(minutes=row.auto_archive_minutes) <= now:
                await self._ask(row, Request.ARCHIVE, f"auto-archive after {row.auto_archive_minutes} min stopped")

    async def _delete_stopped(self, now: datetime) -> None:
        """An archived one is a stopped one all the while; its clock runs from when it was archived."""
        stopped = or_(
            and_(Sandbox.observed == Observed.STOPPED, Sandbox.desired == Desired.STOPPED),
            and_(Sandbox.observed == Observed.ARCHIVED, Sandbox.desired == Desired.ARCHIVED),
        )
        due = is_due(Sandbox.last_activity_at, Sandbox.auto_delete_minutes, now)
        for row in await self._rows(stopped, Sandbox.auto_delete_minutes >= 0, due):
            if row.last_activity_at + timedelta(minutes=row.auto_delete_minutes) <= now:
                await self._ask(row, Request.DESTROY, f"auto-delete after {row.auto_delete_minutes} min stopped")

    async def _delete_expired(self, now: datetime) -> None:
        for row in await self._rows(Sandbox.desired != Desired.DESTROYED, Sandbox.auto_destroy_at <= now):
            await self._ask(row, Request.DESTROY, "its time to live is over", still_idle=False)

    async def _fail_late(self, now: datetime) -> None:
        """What is made for a warm pool goes by its job alone: a jump of the users' clock is nothing to it."""
        late = (
            and_(Sandbox.observed == observed, Sandbox.progressed_at <= now - timedelta(minutes=minutes))
            for observed, minutes in TIME_LIMIT_MINUTES.items()
        )
        for row in await self._rows(
            Sandbox.observed.in_(TIME_LIMIT_MINUTES),
            or_(*late),
            Sandbox.desired != Desired.DESTROYED,
            Sandbox.warm_pool_id.is_(None),
        ):
            await self._fail(row.id, row.observed, f"Timeout while {TIMEOUT_WORDS[row.observed]}")

    async def _fail_unserved(self, now: datetime) -> None:
        """What no runner takes up, such as the start of a sandbox whose runner is gone, must not be waited for."""
        # Named one by one, so that an index finds them.
        waiting = (
            and_(Sandbox.observed == observed, Sandbox.desired == desired)
            for observed, at_rest in RESTING.items()
            for desired in Desired
            if desired not in (at_rest, Desired.DESTROYED)
        )
        late = Sandbox.progressed_at <= now - timedelta(minutes=WAITING_LIMIT_MINUTES)
        for row in await self._rows(or_(*waiting), late):
            reason = f"Timeout while {SHOWN[row.observed, row.desired].value}"
            harmless = row.desired in (Desired.PAUSED, Desired.ARCHIVED)
            await (self._give_up if harmless else self._fail)(row.id, row.observed, reason)

    async def _fail_exhausted(self, _now: datetime) -> None:
        async with self._database.reading() as db:
            jobs = await queue.exhausted(db, now=machine_of(self._clock).now())
        for job in jobs:
            await self._fail(job.sandbox_id, None, f"{job.kind.value} was given up after {job.attempts} attempts")

    async def _destroy_again(self, now: datetime) -> None:
        """A deletion is never given up: where a job for it failed, write another one."""
        unserved = ~exists().where(JobRow.sandbox_id == Sandbox.id, JobRow.state == JobState.OPEN)
        rows = await self._rows(
            Sandbox.desired == Desired.DESTROYED,
            Sandbox.observed.in_([observed for observed in Observed if observed is not Observed.DESTROYED]),
            Sandbox.progressed_at <= now - RETRY_DESTROY,
            unserved,
        )
        for row in rows:
            await self._sandboxes.destroy_again(row.id)

    async def _forget(self, now: datetime) -> None:
        since = now - self._keep_destroyed
        old, gone, done = Sandbox.destroyed_at <= since, Volume.deleted_at <= since, JobRow.finished_at <= since
        async with self._database.reading() as db:
            if not await db.scalar(select(or_(*(exists().where(each) for each in (old, gone, done))))):
                return
        async with self._database.transaction() as db:
            await db.execute(delete(Sandbox).where(old))
            await db.execute(delete(Volume).where(gone))
            await db.execute(delete(JobRow).where(done))

    async def _rows(self, *conditions: ColumnElement[bool]) -> list[Sandbox]:
        async with self._database.reading() as db:
            return list(await db.scalars(select(Sandbox).where(*conditions).order_by(Sandbox.id)))

    async def _ask(self, row: Sandbox, asked: Request, cause: str, *, still_idle: bool = True) -> None:
        """Ask as a user would, provided the sandbox was not used since we looked."""
        guard = Sandbox.last_activity_at == row.last_activity_at if still_idle else None
        try:
            async with self._database.transaction() as db:
                fresh = await db.get(Sandbox, row.id)
                if fresh is None:
                    return
                done = await self._sandboxes.ask(db, fresh, asked, cause=cause, guard=guard)
        except ApiError as error:
            log.info("timer_was_late", sandbox_id=row.id, asked=asked.value, reason=str(error))
            return
        log.info("timer_acted", sandbox_id=row.id, asked=asked.value, cause=cause)
        await self._sandboxes.announce(done)

    async def _give_up(self, sandbox_id: str, observed: Observed, reason: str) -> None:
        """Want what is: nothing was begun, so nothing is broken."""
        now = self._clock.now()
        async with self._database.transaction() as db:
            row = await db.get(Sandbox, sandbox_id)
            if row is None or row.observed is not observed:
                return
            await queue.void_open_job(db, sandbox_id, at=now, reason=reason)
            settled = await moves.settle(db, row, cause=reason, at=now, error_reason=reason)
        await self._announcer.moved(settled)

    async def _fail(self, sandbox_id: str, observed: Observed | None, reason: str) -> None:
        now = self._clock.now()
        async with self._database.transaction() as db:
            row = await db.get(Sandbox, sandbox_id)
            if row is None or (observed is not None and row.observed is not observed):
                return
            await queue.void_open_job(db, sandbox_id, at=now, reason=reason)
            failed = await moves.sight(db, row, Observed.ERROR, cause=reason, at=now, asked_for=True, recoverable=True)
        log.warning("sandbox_failed", sandbox_id=sandbox_id, reason=reason)
        await self._announcer.moved(failed)
