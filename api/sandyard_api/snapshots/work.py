"""The runners' side of snapshots: images to make ready, handed out under a lease, and what came of them."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog
from sqlalchemy import ColumnElement, and_, exists, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from sandyard.clock import Clock
from sandyard.ids import IdSource
from sandyard.virtual_clock import machine_of
from sandyard_api.database import Database
from sandyard_api.errors import Conflict
from sandyard_api.image_registry.service import ImageRegistry
from sandyard_api.jobs.models import JobRow, JobState
from sandyard_api.jobs.queue import MAX_ATTEMPTS
from sandyard_api.jobs.wire import BUILD_REPOSITORY, ImageJob, ImageProgress, ImageResult, ImageSource
from sandyard_api.registries.service import Registries
from sandyard_api.snapshots.models import Snapshot
from sandyard_api.snapshots.states import PREPARING, TIME_LIMIT_MINUTES, SnapshotState
from sandyard_api.snapshots.telling import SnapshotTeller

GIB = 1 << 30
UNUSED_MINUTES = 20_160
"""A snapshot nobody made a sandbox from for that long becomes inactive."""
WAITING_FOR = {
    SnapshotState.PENDING: "waiting for a runner",
    SnapshotState.PULLING: "pulling snapshot",
    SnapshotState.BUILDING: "building snapshot",
    SnapshotState.SNAPSHOTTING: "snapshotting",
}

log = structlog.get_logger()


class SnapshotWork:
    """Claims, results and time limits. Every write is guarded by the lease, or by the state that was seen."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        ids: IdSource,
        *,
        registries: Registries,
        image_registry: ImageRegistry,
        teller: SnapshotTeller,
        lease_seconds: float,
    ) -> None:
        self._database = database
        self._clock = clock
        self._machine = machine_of(clock)
        """What leases go by: they are about this machine, also while the users' time stands still."""
        self._ids = ids
        self._registries = registries
        self._image_registry = image_registry
        self._teller = teller
        self._lease_seconds = lease_seconds

    async def claim(self, db: AsyncSession, runner_id: str, *, limit: int) -> list[ImageJob]:
        """Up to `limit` snapshots whose image nobody works on, oldest first, under a lease."""
        if limit <= 0:
            return []
        now, lease = self._machine.now(), self._ids.token()
        free = (
            select(Snapshot.id)
            .where(
                Snapshot.state.in_(PREPARING),
                or_(Snapshot.lease.is_(None), Snapshot.lease_until < now),
                Snapshot.attempts < MAX_ATTEMPTS,
            )
            .order_by(Snapshot.created_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        taken = await db.scalars(
            update(Snapshot)
            .where(Snapshot.id.in_(free))
            .values(
                runner_id=runner_id,
                lease=lease,
                lease_until=now + timedelta(seconds=self._lease_seconds),
                attempts=Snapshot.attempts + 1,
                progressed_at=self._clock.now(),
            )
            .returning(Snapshot)
            .execution_options(synchronize_session=False, populate_existing=True)
        )
        return [
            ImageJob(row.id, lease, self._lease_seconds, await self.source(db, row))
            for row in sorted(taken.all(), key=lambda row: row.created_at)
        ]

    async def source(self, db: AsyncSession, row: Snapshot) -> ImageSource:
        """How its image is to be had."""
        return await self.source_of(
            db, row.organization_id, row.image, dockerfile=row.dockerfile, context_hashes=row.context_hashes
        )

    async def source_of(
        self,
        db: AsyncSession,
        organization_id: str | None,
        image: str | None,
        *,
        dockerfile: str | None,
        context_hashes: Sequence[str],
    ) -> ImageSource:
        """How an image is to be had, with what the registries it may come from ask for."""
        is_built = image is not None and image.startswith(f"{BUILD_REPOSITORY}:")
        logins = list(await self._registries.logins(db, organization_id)) if image is not None else []
        logins += self._image_registry.logins(organization_id, image, dockerfile if is_built else None)
        return ImageSource(
            reference=image,
            organization_id=organization_id or "",
            dockerfile=dockerfile if is_built else None,
            context_hashes=tuple(context_hashes) if is_built else (),
            logins=tuple(logins),
        )

    async def progress(self, snapshot_id: str, progress: ImageProgress) -> None:
        """Extend a lease and note how far the work came. Raises `Conflict` when the lease is void."""
        now = self._clock.now()
        values: dict[str, object] = {"lease_until": self._machine.now() + timedelta(seconds=self._lease_seconds)}
        if progress.step is not None:
            values |= {"state": SnapshotState(progress.step.value), "progressed_at": now, "updated_at": now}
        async with self._database.transaction() as db:
            row, old = await self._write(db, snapshot_id, progress.lease, values)
        if progress.step is not None:
            await self._teller.moved(row, old)

    async def finish(self, snapshot_id: str, result: ImageResult) -> None:
        """Take in what came of it. Raises `Conflict` when the lease is void."""
        now = self._clock.now()
        async with self._database.transaction() as db:
            row = await db.get(Snapshot, snapshot_id)
            is_build = row is not None and row.dockerfile is not None
            values: dict[str, object] = {"lease": None, "lease_until": None, "progressed_at": now, "updated_at": now}
            if result.ok:
                values |= {
                    "state": SnapshotState.ACTIVE,
                    "error_reason": None,
                    "size_gib": None if result.size_bytes is None else round(result.size_bytes / GIB, 3),
                    "image_entrypoint": list(result.entrypoint) if result.entrypoint else None,
                }
            else:
                failed = SnapshotState.BUILD_FAILED if is_build else SnapshotState.ERROR
                values |= {"state": failed, "error_reason": result.reason}
            row, old = await self._write(db, snapshot_id, result.lease, values)
        await self._teller.moved(row, old)

    async def end_from_sandbox(self, db: AsyncSession, image: str, *, ok: bool, reason: str) -> Snapshot | None:
        """Take in what came of making a snapshot from a sandbox; the snapshot, for telling of it."""
        now = self._clock.now()
        state = SnapshotState.ACTIVE if ok else SnapshotState.ERROR
        being_made = (Snapshot.image == image) & (Snapshot.state == SnapshotState.SNAPSHOTTING)
        ended = update(Snapshot).where(being_made).values(state=state, progressed_at=now, updated_at=now)
        ended = ended.values(error_reason=None if ok else reason)
        found: Snapshot | None = await db.scalar(
            ended.returning(Snapshot).execution_options(synchronize_session=False, populate_existing=True)
        )
        return found

    async def tell(self, made: Snapshot | None) -> None:
        """Tell of what `end_from_sandbox` wrote."""
        if made is not None:
            await self._teller.moved(made, SnapshotState.SNAPSHOTTING)

    async def look(self) -> None:
        """Do what is due: time limits, work that was given up, and snapshots that nobody uses."""
        now = self._clock.now()
        async with self._database.reading() as db:
            passing = Snapshot.state.in_((*TIME_LIMIT_MINUTES, *PREPARING, SnapshotState.SNAPSHOTTING))
            is_any = await db.scalar(select(Snapshot.id).where(or_(passing, self._unused(now))).limit(1)) is not None
        if not is_any:
            return
        for state, minutes in TIME_LIMIT_MINUTES.items():
            late = Snapshot.progressed_at <= now - timedelta(minutes=minutes)
            await self._fail(now, state, f"Timeout while {WAITING_FOR[state]}", late)
        for state in PREPARING:
            given_up = (Snapshot.attempts >= MAX_ATTEMPTS) & (Snapshot.lease_until < self._machine.now())
            await self._fail(now, state, f"given up after {MAX_ATTEMPTS} attempts: no runner came to an end", given_up)
        unserved = ~exists().where(JobRow.image == Snapshot.image, JobRow.state == JobState.OPEN)
        await self._fail(now, SnapshotState.SNAPSHOTTING, "the sandbox was deleted or failed meanwhile", unserved)
        await self._deactivate_unused(now)

    async def being_made(self) -> list[str]:
        """Ids of snapshots that a runner works on, or is to."""
        async with self._database.reading() as db:
            return list(await db.scalars(select(Snapshot.id).where(Snapshot.state.in_(PREPARING))))

    async def next_due(self, after: datetime) -> datetime | None:
        """When the first snapshot, after that moment, becomes inactive because nobody used it."""
        async with self._database.reading() as db:
            used = func.coalesce(Snapshot.last_used_at, Snapshot.created_at)
            since = after - timedelta(minutes=UNUSED_MINUTES)
            active = (Snapshot.state == SnapshotState.ACTIVE) & Snapshot.organization_id.is_not(None)
            first = await db.scalar(select(func.min(used)).where(active, used > since))
        return None if first is None else first + timedelta(minutes=UNUSED_MINUTES)

    async def wanted_images(self, db: AsyncSession) -> Sequence[str]:
        """Images of snapshots that sandboxes can be, or are about to be, made from."""
        unwanted = (SnapshotState.INACTIVE, SnapshotState.ERROR, SnapshotState.BUILD_FAILED, SnapshotState.REMOVING)
        found = await db.scalars(
            select(Snapshot.image).where(Snapshot.image.is_not(None), Snapshot.state.not_in(unwanted)).distinct()
        )
        return [image for image in found if image is not None]

    async def _write(
        self, db: AsyncSession, snapshot_id: str, lease: str, values: dict[str, object]
    ) -> tuple[Snapshot, SnapshotState]:
        """The row as it is now, and the state it was in."""
        old = await db.scalar(select(Snapshot.state).where(Snapshot.id == snapshot_id))
        held = (Snapshot.id == snapshot_id) & (Snapshot.lease == lease) & Snapshot.state.in_(PREPARING)
        written = update(Snapshot).where(held).values(**values).returning(Snapshot)
        row = await db.scalar(written.execution_options(synchronize_session=False, populate_existing=True))
        if row is None or old is None:
            raise Conflict(f"the lease of image job {snapshot_id} is void")
        return row, old

    async def _fail(self, now: datetime, state: SnapshotState, reason: str, condition: ColumnElement[bool]) -> None:
        failed = SnapshotState.BUILD_FAILED if state is SnapshotState.BUILDING else SnapshotState.ERROR
        async with self._database.transaction() as db:
            rows = await db.scalars(
                update(Snapshot)
                .where(Snapshot.state == state, condition)
                .values(state=failed, error_reason=reason, lease=None, lease_until=None, updated_at=now)
                .returning(Snapshot)
                .execution_options(synchronize_session=False, populate_existing=True)
            )
            ended = rows.all()
        for row in ended:
            log.warning("snapshot_failed", snapshot_id=row.id, reason=reason)
            await self._teller.moved(row, state)

    def _unused(self, now: datetime) -> ColumnElement[bool]:
        since = now - timedelta(minutes=UNUSED_MINUTES)
        unused = or_(Snapshot.last_used_at <= since, Snapshot.last_used_at.is_(None) & (Snapshot.created_at <= since))
        return and_(Snapshot.state == SnapshotState.ACTIVE, Snapshot.organization_id.is_not(None), unused)

    async def _deactivate_unused(self, now: datetime) -> None:
        async with self._database.transaction() as db:
            rows = await db.scalars(
                update(Snapshot)
                .where(self._unused(now))
                .values(state=SnapshotState.INACTIVE, deactivated_at=now, updated_at=now)
                .returning(Snapshot)
                .execution_options(synchronize_session=False, populate_existing=True)
            )
            ended = rows.all()
        for row in ended:
            log.info("snapshot_unused", snapshot_id=row.id)
            await self._teller.moved(row, SnapshotState.ACTIVE)
