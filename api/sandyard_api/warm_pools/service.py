"""What can be done with warm pools: create, list, resize, delete, and the one that the setting makes."""

from collections.abc import Mapping, Sequence

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from sandyard.clock import Clock
from sandyard.ids import IdSource
from sandyard_api.database import Database
from sandyard_api.errors import BadRequest, Conflict, Forbidden, NotFound
from sandyard_api.organizations.models import Organization
from sandyard_api.quotas.service import Quotas
from sandyard_api.sandboxes.announcing import WARM
from sandyard_api.sandboxes.models import Sandbox
from sandyard_api.sandboxes.states import Desired, Observed
from sandyard_api.snapshots.service import Snapshots
from sandyard_api.wakeups import Wakeups
from sandyard_api.warm_pools.models import NOBODY, WarmPool
from sandyard_api.warm_pools.requests import NewPool

BY_SETTING = "This pool is made by the setting SANDYARD_WARM_POOL; change it there"

WAITING: tuple[ColumnElement[bool], ...] = (
    Sandbox.warm_pool_id.is_not(None),
    Sandbox.claimed_at.is_(None),
    Sandbox.observed == Observed.STARTED,
    Sandbox.desired == Desired.STARTED,
)
"""What can be handed out."""


class WarmPools:
    """The verbs. What is neither an organization's own nor everybody's does not exist for it: `NotFound`."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        ids: IdSource,
        *,
        snapshots: Snapshots,
        quotas: Quotas,
        changes: Wakeups,
        region: str,
    ) -> None:
        self._database = database
        self._clock = clock
        self._ids = ids
        self._snapshots = snapshots
        self._quotas = quotas
        self._changes = changes
        self._region = region

    async def create(self, organization_id: str, wanted: NewPool) -> WarmPool:
        """Keep that many. Raises `Conflict` where there is one, `BadRequest` for the snapshot or beyond a limit."""
        try:
            async with self._database.transaction() as db:
                row = await self._new_row(db, organization_id, wanted)
                await self._check_room(db, row)
                db.add(row)
        except IntegrityError as error:
            raise Conflict(f"A warm pool for snapshot {wanted.snapshot} already exists in this region") from error
        await self._changes.announce(WARM)
        return row

    async def all(self, organization_id: str) -> list[tuple[WarmPool, int]]:
        """Their own and everybody's, oldest first, each with how many wait in it."""
        async with self._database.reading() as db:
            theirs = select(WarmPool).where(WarmPool.organization_id.in_((organization_id, NOBODY)))
            rows = (await db.scalars(theirs.order_by(WarmPool.created_at, WarmPool.id))).all()
            ready = await _ready(db, rows)
        return [(row, ready.get(row.id, 0)) for row in rows]

    async def resize(self, organization_id: str, pool_id: str, size: int) -> tuple[WarmPool, int]:
        """Keep that many from now on; what is too many is removed. Raises `BadRequest`, `Forbidden`, `NotFound`."""
        async with self._database.transaction() as db:
            row = await _own(db, organization_id, pool_id)
            row.size, row.updated_at = size, self._clock.now()
            row.error_reason = row.retry_at = None
            await self._check_room(db, row)
            ready = await _ready(db, [row])
        await self._changes.announce(WARM)
        return row, ready.get(row.id, 0)

    async def delete(self, organization_id: str, pool_id: str) -> None:
        """Forget it; what waits in it is removed. Raises `Forbidden` and `NotFound`."""
        async with self._database.transaction() as db:
            row = await _own(db, organization_id, pool_id)
            await db.execute(delete(WarmPool).where(WarmPool.id == row.id))
        await self._changes.announce(WARM)

    async def keep_shared(self, snapshot: str, size: int) -> None:
        """Make, resize or delete the pool of the setting. May be repeated, and by several replicas at once."""
        try:
            async with self._database.transaction() as db:
                if await db.get(Organization, NOBODY) is None:
                    db.add(Organization(id=NOBODY, name=NOBODY, created_at=self._clock.now()))
                    await db.flush()
                wanted = await self._new_row(db, NOBODY, NewPool(snapshot, size))
                others = (WarmPool.organization_id == NOBODY) & (WarmPool.snapshot_id != wanted.snapshot_id)
                await db.execute(delete(WarmPool).where(others))
                row = await db.scalar(select(WarmPool).where(WarmPool.organization_id == NOBODY))
                if row is None:
                    db.add(wanted)
                else:
                    row.size, row.error_reason, row.retry_at = size, None, None
        except IntegrityError:
            return  # another replica was first

    async def end_shared(self) -> None:
        """Delete the pool of the setting."""
        async with self._database.transaction() as db:
            await db.execute(delete(WarmPool).where(WarmPool.organization_id == NOBODY))

    async def _new_row(self, db: AsyncSession, organization_id: str, wanted: NewPool) -> WarmPool:
        snapshot, now = await self._snapshots.use(db, organization_id, wanted.snapshot), self._clock.now()
        return WarmPool(
            id=self._ids.uuid(),
            organization_id=organization_id,
            snapshot=snapshot.name,
            snapshot_id=snapshot.id,
            region=self._region,
            size=wanted.size,
            cpu=snapshot.cpu,
            memory_gib=snapshot.memory_gib,
            disk_gib=snapshot.disk_gib,
            created_at=now,
            updated_at=now,
        )

    async def _check_room(self, db: AsyncSession, row: WarmPool) -> None:
        """All pools of an organization together must fit into its limits, beside nothing else."""
        self._quotas.check_size(cpu=row.cpu, memory=row.memory_gib, disk=row.disk_gib)
        others = (WarmPool.organization_id == row.organization_id) & (WarmPool.id != row.id)
        pools = [row, *await db.scalars(select(WarmPool).where(others))]
        limits = self._quotas.limits
        for title, most, asked in (
            ("CPU", limits.cpu, sum(each.cpu * each.size for each in pools)),
            ("memory", limits.memory, sum(each.memory_gib * each.size for each in pools)),
            ("disk", limits.disk, sum(each.disk_gib * each.size for each in pools)),
        ):
            if asked > most:
                raise BadRequest(f"Total {title} limit exceeded by warm pools. Maximum allowed: {most}.")


async def _own(db: AsyncSession, organization_id: str, pool_id: str) -> WarmPool:
    row = await db.get(WarmPool, pool_id, with_for_update=True)
    if row is None or row.organization_id not in (organization_id, NOBODY):
        raise NotFound(f"Warm pool with ID {pool_id} not found")
    if row.is_shared:
        raise Forbidden(BY_SETTING)
    return row


async def _ready(db: AsyncSession, pools: Sequence[WarmPool]) -> Mapping[str, int]:
    counts = (
        select(Sandbox.warm_pool_id, func.count())
        .where(*WAITING, Sandbox.warm_pool_id.in_([row.id for row in pools]))
        .group_by(Sandbox.warm_pool_id)
    )
    return {pool_id: count for pool_id, count in await db.execute(counts) if pool_id is not None}
