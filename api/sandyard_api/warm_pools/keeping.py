"""Keeping warm pools full: making what is missing, removing what is too many or dead. One task owns it."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import structlog
from sqlalchemy import exists, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from sandyard.beside import meanwhile
from sandyard.clock import Clock
from sandyard.ids import RandomIds
from sandyard.virtual_clock import machine_of
from sandyard_api.database import Database
from sandyard_api.errors import ApiError
from sandyard_api.jobs.models import JobRow, JobState
from sandyard_api.jobs.queue import ANY_RUNNER
from sandyard_api.jobs.wire import JobKind
from sandyard_api.sandboxes.announcing import WARM, Announcer
from sandyard_api.sandboxes.models import Sandbox
from sandyard_api.sandboxes.moves import Move
from sandyard_api.sandboxes.network_requests import NetworkWish
from sandyard_api.sandboxes.requests import AUTO_DELETE_OFF, NewSandbox
from sandyard_api.sandboxes.service import Sandboxes
from sandyard_api.sandboxes.states import SHOWN, Desired, Request, Shown
from sandyard_api.wakeups import Wakeups
from sandyard_api.warm_pools.models import WarmPool

MAX_MAKING = 2
"""So many are made at once, of all pools: a runner has eight hands, and the others are for users."""
PATIENCE_SECONDS = 10.0
"""How long users who keep coming can hold up the filling of pools."""
QUIET_SECONDS = 1.0
"""After a claim there may soon be another one: claims come in bursts, and what is made beside them slows them down."""
CLAIM_SECONDS = 30.0
"""A claim that is not over by then belongs to a process that died."""
USERS_WAIT_FOR = (JobKind.CREATE, JobKind.START, JobKind.RESTORE, JobKind.RESUME, JobKind.FORK, JobKind.RECOVER)
MAKING = frozenset(
    observed
    for (observed, desired), shown in SHOWN.items()
    if desired is Desired.STARTED
    and shown in (Shown.CREATING, Shown.PULLING_SNAPSHOT, Shown.BUILDING_SNAPSHOT, Shown.STARTING)
)
"""What leads to a started one by itself."""

log = structlog.get_logger()


class WarmKeeper:
    """Looks at every pool. Any number of replicas may look at once: pools are locked, and removals guarded."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        sandboxes: Sandboxes,
        announcer: Announcer,
        changes: Wakeups,
        period_seconds: float,
        retry_seconds: float,
    ) -> None:
        self._database = database
        self._clock = clock
        self._machine = machine_of(clock)
        self._sandboxes = sandboxes
        self._announcer = announcer
        self._changes = changes
        self._period_seconds = period_seconds
        self._retry = timedelta(seconds=retry_seconds)
        # Not from a seed: when a pool is filled is nobody's to foresee, and would shift the identifiers of a run.
        self._ids = RandomIds()
        self._last_claim = float("-inf")
        self._held_since: float | None = None
        self._looking = asyncio.Lock()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look whenever something changed, and now and then, for as long as the block lasts."""
        async with meanwhile(self._run(), name="warm-pools"):
            yield

    def note_claim(self) -> None:
        """One was handed out just now."""
        self._last_claim = self._clock.monotonic()

    async def look(self) -> None:
        """Remove what does not belong there, then make what is missing, as far as users let us."""
        async with self._looking:
            await self._look()

    async def _look(self) -> None:
        pools, rows = await self._read()
        kept: defaultdict[str, list[Sandbox]] = defaultdict(list)
        for row in rows:
            pool = pools.get(row.warm_pool_id or "")
            if (why := self._unfit(row, pool)) is None:
                kept[row.warm_pool_id or ""].append(row)
            else:
                await self._end(row, why)
                await self._note_failure(row, pool)
        for pool in pools.values():
            await self._end_surplus(pool, kept[pool.id])
            await self._note_whole(pool, kept[pool.id])
        if await self._must_hold([pool for pool in pools.values() if len(kept[pool.id]) < pool.size]):
            return
        for pool in pools.values():
            await self._fill(pool)

    async def _run(self) -> None:
        while True:
            with self._changes.watch(WARM) as watch:
                try:
                    await self.look()
                except Exception:
                    # The database may be away for a while; the keeper must outlive that.
                    log.exception("warm_pools_failed")
                held = self._held_since is not None
                await watch.wait(min(QUIET_SECONDS, self._period_seconds) if held else self._period_seconds)

    async def _read(self) -> tuple[dict[str, WarmPool], Sequence[Sandbox]]:
        async with self._database.reading() as db:
            pools = (await db.scalars(select(WarmPool).order_by(WarmPool.created_at, WarmPool.id))).all()
            rows = await db.scalars(
                select(Sandbox)
                .where(Sandbox.warm_pool_id.is_not(None), Sandbox.desired != Desired.DESTROYED)
                .order_by(Sandbox.created_at, Sandbox.id)
            )
            return {pool.id: pool for pool in pools}, rows.all()

    def _unfit(self, row: Sandbox, pool: WarmPool | None) -> str | None:
        """Why it cannot stay; `None`: it can."""
        if row.claimed_at is not None:
            late = row.claimed_at + timedelta(seconds=CLAIM_SECONDS) <= self._machine.now()
            return "it was being claimed when Sandyard ended" if late else None
        if pool is None:
            return "its warm pool is gone"
        if SHOWN[row.observed, row.desired] is Shown.STARTED or _is_making(row):
            return None
        return f"it is {SHOWN[row.observed, row.desired].value} and of no use to a warm pool"

    async def _end(self, row: Sandbox, cause: str) -> None:
        """Delete it, unless somebody claims it meanwhile."""
        still = Sandbox.warm_pool_id.is_not(None) & Sandbox.claimed_at.is_not_distinct_from(row.claimed_at)
        try:
            async with self._database.transaction() as db:
                fresh = await db.get(Sandbox, row.id)
                if fresh is None or fresh.desired is Desired.DESTROYED:
                    return
                done = await self._sandboxes.ask(db, fresh, Request.DESTROY, cause=cause, guard=still)
        except ApiError as error:
            log.info("warm_sandbox_stays", sandbox_id=row.id, reason=str(error))
            return
        log.info("warm_sandbox_removed", sandbox_id=row.id, cause=cause)
        await self._sandboxes.announce(done)

    async def _note_failure(self, row: Sandbox, pool: WarmPool | None) -> None:
        if pool is None or row.claimed_at is not None:
            return
        reason = row.error_reason or f"a warm sandbox ended by itself ({SHOWN[row.observed, row.desired].value})"
        await self._write_failure(pool.id, reason)

    async def _write_failure(self, pool_id: str, reason: str) -> None:
        async with self._database.transaction() as db:
            failed = update(WarmPool).where(WarmPool.id == pool_id)
            await db.execute(failed.values(error_reason=reason, retry_at=self._machine.now() + self._retry))

    async def _note_whole(self, pool: WarmPool, rows: Sequence[Sandbox]) -> None:
        """Forget what failed before it was full."""
        ready = [row for row in rows if row.claimed_at is None and not _is_making(row)]
        if pool.error_reason is not None and len(ready) >= pool.size:
            async with self._database.transaction() as db:
                unchanged = (WarmPool.id == pool.id) & (WarmPool.error_reason == pool.error_reason)
                await db.execute(update(WarmPool).where(unchanged).values(error_reason=None, retry_at=None))

    async def _end_surplus(self, pool: WarmPool, rows: Sequence[Sandbox]) -> None:
        """What is not ready yet goes first, then the newest."""
        spare = sorted(
            (row for row in rows if row.claimed_at is None), key=lambda row: (_is_making(row), row.created_at)
        )
        for row in spare[pool.size :]:
            await self._end(row, "its warm pool was made smaller")

    async def _must_hold(self, lacking: Sequence[WarmPool]) -> bool:
        """Whether users are at work, who come first; though not for ever."""
        now = self._clock.monotonic()
        if not lacking:
            self._held_since = None
            return True
        busy = now - self._last_claim < QUIET_SECONDS or await self._users_wait()
        if not busy:
            self._held_since = None
            return False
        self._held_since = now if self._held_since is None else self._held_since
        return now - self._held_since < PATIENCE_SECONDS

    async def _users_wait(self) -> bool:
        users = (JobRow.state == JobState.OPEN) & JobRow.kind.in_(USERS_WAIT_FOR)
        theirs = exists().where(Sandbox.id == JobRow.sandbox_id, Sandbox.warm_pool_id.is_(None))
        async with self._database.reading() as db:
            return await db.scalar(select(JobRow.id).where(users, theirs).limit(1)) is not None

    async def _fill(self, pool: WarmPool) -> None:
        try:
            async with self._database.transaction() as db:
                made = await self._order_missing(db, pool.id)
        except ApiError as error:
            log.warning("warm_pool_not_filled", pool_id=pool.id, reason=str(error))
            await self._write_failure(pool.id, str(error))
            return
        if made:
            await self._announcer.moved(*(Move(row, None) for row in made))
            await self._announcer.job_written(ANY_RUNNER)

    async def _order_missing(self, db: AsyncSession, pool_id: str) -> list[Sandbox]:
        """Under the pool's lock, so that two replicas do not both fill the same gap. Raises `ApiError`."""
        pool = await db.get(WarmPool, pool_id, with_for_update=True)
        if pool is None or (pool.retry_at is not None and pool.retry_at > self._machine.now()):
            return []
        there = (Sandbox.warm_pool_id == pool_id) & (Sandbox.desired != Desired.DESTROYED)
        ids = (await db.scalars(select(Sandbox.id).where(there, Sandbox.claimed_at.is_(None)))).all()
        of_all = (Sandbox.warm_pool_id.is_not(None), Sandbox.observed.in_(MAKING), Sandbox.desired == Desired.STARTED)
        making = await db.scalar(select(func.count()).select_from(Sandbox).where(*of_all)) or 0
        missing = max(0, min(pool.size - len(ids), MAX_MAKING - making))
        wanted = _warm(pool)
        made = []
        for _ in range(missing):
            row, _ = await self._sandboxes.insert(
                db, pool.organization_id, self._ids.uuid(), wanted, warm_pool_id=pool_id
            )
            made.append(row)
        return made


def _is_making(row: Sandbox) -> bool:
    return row.desired is Desired.STARTED and row.observed in MAKING


def _warm(pool: WarmPool) -> NewSandbox:
    """What waits: nobody's choice but the snapshot, and no timer ever looks at it."""
    return NewSandbox(
        name=None,
        snapshot=pool.snapshot_id,
        build=None,
        mounts=(),
        user=None,
        env={},
        labels={},
        public=False,
        network=NetworkWish(None, None, None),
        secrets={},
        outbound_proxy=None,
        cpu=pool.cpu,
        memory_gib=pool.memory_gib,
        disk_gib=pool.disk_gib,
        auto_stop_minutes=0,
        auto_pause_minutes=0,
        auto_archive_minutes=0,
        auto_delete_minutes=AUTO_DELETE_OFF,
        ttl_minutes=None,
    )
