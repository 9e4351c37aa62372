"""What can be done with snapshots: create, find, list, delete, activate, deactivate."""

import math
import uuid
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, case, delete, func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from sandyard.clock import Clock
from sandyard.ids import IdSource
from sandyard_api.database import Database
from sandyard_api.errors import BadRequest, Conflict, Forbidden, NotFound
from sandyard_api.jobs.queue import ANY_RUNNER
from sandyard_api.jobs.wire import SNAPSHOT_REPOSITORY
from sandyard_api.queries import Query
from sandyard_api.quotas.service import Quotas
from sandyard_api.runners.service import Runners
from sandyard_api.snapshots.images import DEFAULT_IMAGE_TITLE, SNAPSHOT_ALIASES
from sandyard_api.snapshots.models import Snapshot, SnapshotLogChunk
from sandyard_api.snapshots.requests import NewSnapshot
from sandyard_api.snapshots.states import SnapshotState
from sandyard_api.snapshots.telling import SnapshotTeller
from sandyard_api.storage.service import Contexts
from sandyard_api.wakeups import Wakeups

GENERAL: Mapping[str, tuple[int, int, int]] = {
    "sandyard-default": (1, 1, 3),
    "sandyard-medium": (2, 4, 8),
    "sandyard-large": (4, 8, 10),
}
"""The snapshots that are always there: cores, GiB of memory, GiB of disk. All are of the runtime's default image."""
REACTIVATE_AFTER = timedelta(minutes=10)
MAX_LIMIT, DEFAULT_LIMIT = 200, 100
SORTS: Mapping[str, InstrumentedAttribute[Any]] = {
    "name": Snapshot.name,
    "state": Snapshot.state,
    "lastUsedAt": Snapshot.last_used_at,
    "createdAt": Snapshot.created_at,
}


class SnapshotRows(msgspec.Struct, frozen=True):
    """A page of the list."""

    rows: Sequence[Snapshot]
    total: int
    page: int
    total_pages: int


class SourceSandbox(msgspec.Struct, frozen=True):
    """What of a sandbox its snapshot has, too."""

    id: str
    runner_id: str | None
    entrypoint: list[str] | None
    cpu: int
    memory_gib: int
    disk_gib: int


class Snapshots:
    """The verbs. What is not an organization's own, or general, does not exist for it: `NotFound`."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        ids: IdSource,
        *,
        runners: Runners,
        contexts: Contexts,
        quotas: Quotas,
        teller: SnapshotTeller,
        jobs: Wakeups,
        region: str,
        wait_seconds: float,
    ) -> None:
        self._database = database
        self._clock = clock
        self._ids = ids
        self._runners = runners
        self._contexts = contexts
        self._quotas = quotas
        self._teller = teller
        self._jobs = jobs
        self._region = region
        self._wait_seconds = wait_seconds

    async def keep_general(self) -> None:
        """Make the general snapshots where they are missing. May be repeated, and by several replicas at once."""
        for name, (cpu, memory, disk) in GENERAL.items():
            try:
                async with self._database.transaction() as db:
                    there = select(Snapshot.id).where(Snapshot.organization_id.is_(None), Snapshot.name == name)
                    if await db.scalar(there) is None:
                        wanted = NewSnapshot(name=name, cpu=cpu, memory_gib=memory, disk_gib=disk)
                        row = self._new_row(None, wanted, image=None)
                        row.image_name, row.state = DEFAULT_IMAGE_TITLE, SnapshotState.ACTIVE
                        db.add(row)
            except IntegrityError:
                continue  # another replica was first

    async def create(self, organization_id: str, wanted: NewSnapshot) -> Snapshot:
        """Write it down as `pending`, which is the job for a runner.

        Raises `Conflict` for a name that is taken, `BadRequest` without a runner, beyond the limit and for
        contexts that are not there.
        """
        image = wanted.image(organization_id)
        await self._runners.wait_for_one(self._clock.monotonic() + self._wait_seconds)
        if wanted.build is not None:
            await self._contexts.require(organization_id, wanted.build.context_hashes)
        row = self._new_row(organization_id, wanted, image=image)
        said = wanted.build.first_words() if wanted.build else f"Preparing image {wanted.image_name}\n"
        try:
            async with self._database.transaction() as db:
                await self._quotas.check_snapshots(db, organization_id)
                db.add(row)
                await db.flush()
                # Clients wait for at least one line.
                db.add(SnapshotLogChunk(snapshot_id=row.id, at=row.created_at, text=said))
        except IntegrityError as error:
            raise Conflict(f'Snapshot with name "{wanted.name}" already exists for this organization') from error
        await self._teller.created(row)
        await self._jobs.announce(ANY_RUNNER)
        return row

    async def begin_from_sandbox(
        self, db: AsyncSession, organization_id: str, name: str, source: SourceSandbox
    ) -> Snapshot:
        """Write one down that is being made from a sandbox, to be told of by `told` after the commit.

        Raises `BadRequest` beyond the limit, `IntegrityError` for a taken name.
        """
        await self._quotas.check_snapshots(db, organization_id)
        wanted = NewSnapshot(
            name=name,
            entrypoint=source.entrypoint,
            cpu=source.cpu,
            memory_gib=source.memory_gib,
            disk_gib=source.disk_gib,
        )
        row = self._new_row(organization_id, wanted, image=None)
        row.image = f"{SNAPSHOT_REPOSITORY}:{row.id}"
        row.state, row.source_sandbox_id, row.runner_id = SnapshotState.SNAPSHOTTING, source.id, source.runner_id
        db.add(row)
        await db.flush()
        return row

    async def told(self, row: Snapshot) -> None:
        """Tell of what `begin_from_sandbox` wrote."""
        await self._teller.created(row)

    async def get(self, organization_id: str, key: str) -> Snapshot:
        """By id or name, general ones included."""
        async with self._database.reading() as db:
            row = await find(db, organization_id, key)
        if row is None:
            raise not_found(key)
        return row

    async def list(self, organization_id: str, query: Query) -> SnapshotRows:
        """One page of their own and the general ones, the latter last. Raises `BadRequest`."""
        page = query.whole("page", 1, minimum=1, maximum=1 << 31)
        limit = query.whole("limit", DEFAULT_LIMIT, minimum=1, maximum=MAX_LIMIT)
        sort = SORTS[query.choice("sort", tuple(SORTS), "lastUsedAt")]
        is_ascending = query.choice("order", ("asc", "desc"), "desc") == "asc"
        conditions = [or_(Snapshot.organization_id == organization_id, Snapshot.organization_id.is_(None))]
        if name := query.text("name"):
            conditions.append(func.lower(Snapshot.name).contains(name.lower(), autoescape=True))
        if source := query.text("sourceSandboxId"):
            conditions.append(Snapshot.source_sandbox_id == source)
        order = sort.asc() if is_ascending else sort.desc()
        general_last = case((Snapshot.organization_id.is_(None), 1), else_=0)
        async with self._database.reading() as db:
            total = await db.scalar(select(func.count()).select_from(Snapshot).where(*conditions)) or 0
            found = await db.scalars(
                select(Snapshot)
                .where(*conditions)
                .order_by(general_last, order.nulls_last(), Snapshot.created_at.desc(), Snapshot.id)
                .offset((page - 1) * limit)
                .limit(limit)
            )
            rows = found.all()
        return SnapshotRows(rows, total, page, math.ceil(total / limit))

    async def delete(self, organization_id: str, snapshot_id: str) -> None:
        """Forget it, whatever is being done for it; its name is free at once.

        Runners remove its image once nothing else is made from it. Raises `BadRequest`, `Forbidden` and `NotFound`.
        """
        check_uuid(snapshot_id)
        async with self._database.transaction() as db:
            row = await find(db, organization_id, snapshot_id)
            if row is None:
                raise not_found(snapshot_id)
            if row.is_general:
                raise Forbidden("You cannot delete a general snapshot")
            await db.execute(delete(Snapshot).where(Snapshot.id == row.id))
        await self._teller.removed(row)

    async def activate(self, organization_id: str, key: str) -> Snapshot:
        """Let a runner fetch the image of an inactive one again."""
        now = self._clock.now()
        async with self._database.transaction() as db:
            row = await self._own(db, organization_id, key)
            if row.state is SnapshotState.ACTIVE:
                raise BadRequest(f"Snapshot {key} is already active")
            if row.state is not SnapshotState.INACTIVE:
                raise BadRequest(f"Snapshot {key} cannot be activated - it is in {row.state.value} state")
            if row.deactivated_at is not None and now - row.deactivated_at < REACTIVATE_AFTER:
                raise BadRequest("Snapshot deactivation is still in progress. Please try again in a few minutes.")
            await self._quotas.check_snapshots(db, organization_id)
            row.state, row.error_reason, row.deactivated_at = SnapshotState.PENDING, None, None
            row.lease, row.lease_until, row.attempts = None, None, 0
            row.last_used_at = row.progressed_at = row.updated_at = now
        await self._teller.moved(row, SnapshotState.INACTIVE)
        await self._jobs.announce(ANY_RUNNER)
        return row

    async def deactivate(self, organization_id: str, key: str) -> None:
        """Let its image go; deactivating an inactive one changes nothing."""
        async with self._database.transaction() as db:
            row = await self._own(db, organization_id, key)
            if row.state is SnapshotState.INACTIVE:
                return
            if row.state is not SnapshotState.ACTIVE:
                raise BadRequest(f"Snapshot {key} cannot be deactivated - it is in {row.state.value} state")
            row.state = SnapshotState.INACTIVE
            row.deactivated_at = row.progressed_at = row.updated_at = self._clock.now()
        await self._teller.moved(row, SnapshotState.ACTIVE)

    async def use(self, db: AsyncSession, organization_id: str, key: str) -> Snapshot:
        """The snapshot for a new sandbox, noted as used now. Raises `BadRequest` in the platform's words."""
        row = await find(db, organization_id, SNAPSHOT_ALIASES.get(key, key), by_name_first=True)
        if row is None:
            raise BadRequest(f"Snapshot {key} not found. Did you add it through the Daytona Dashboard?")
        if row.state is not SnapshotState.ACTIVE:
            raise BadRequest(f"Snapshot {key} is {row.state.value}")
        used = update(Snapshot).where(Snapshot.id == row.id).values(last_used_at=self._clock.now())
        await db.execute(used.execution_options(synchronize_session=False))
        return row

    async def _own(self, db: AsyncSession, organization_id: str, key: str) -> Snapshot:
        row = await find(db, organization_id, key)
        if row is None or row.is_general:
            raise not_found(key)
        return row

    def _new_row(self, organization_id: str | None, wanted: NewSnapshot, *, image: str | None) -> Snapshot:
        now = self._clock.now()
        return Snapshot(
            id=self._ids.uuid(),
            organization_id=organization_id,
            name=wanted.name,
            image_name=wanted.image_name,
            dockerfile=wanted.build.dockerfile if wanted.build else None,
            context_hashes=list(wanted.build.context_hashes) if wanted.build else [],
            image=image,
            entrypoint=wanted.entrypoint,
            cpu=wanted.cpu,
            memory_gib=wanted.memory_gib,
            disk_gib=wanted.disk_gib,
            state=SnapshotState.PENDING,
            region=self._region,
            attempts=0,
            progressed_at=now,
            created_at=now,
            updated_at=now,
        )


def not_found(key: str) -> NotFound:
    """The answer for a snapshot that is not there, or not for this key."""
    return NotFound(f"Snapshot with ID or name {key} not found")


def check_uuid(text: str) -> None:
    """Raise `BadRequest` for what is no UUID."""
    try:
        uuid.UUID(text)
    except ValueError as error:
        raise BadRequest("Validation failed (uuid is expected)") from error


async def find(db: AsyncSession, organization_id: str, key: str, *, by_name_first: bool = False) -> Snapshot | None:
    """An organization's own by id or name, then a general one. `by_name_first`: a name that looks like an id wins."""
    own: ColumnElement[bool] = Snapshot.organization_id == organization_id
    general: ColumnElement[bool] = Snapshot.organization_id.is_(None)
    by_id, by_name = Snapshot.id == key, Snapshot.name == key
    names = [by_name & own, by_name & general]
    order = [*names, by_id & (own | general)] if by_name_first else [by_id & (own | general), *names]
    for condition in order:
        row = await db.scalar(select(Snapshot).where(condition))
        if row is not None:
            return row
    return None
