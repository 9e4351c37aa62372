"""Creating from a warm pool: one guarded update, one call to the daemon, and the sandbox is the user's.

The first transaction takes a waiting sandbox and writes all that the user asked for; still nobody sees it. Then its
daemon gets the user's variables, which also shows that it lives. The second transaction makes it the user's. A process
that dies in between leaves one that the keeper removes.
"""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol

import structlog
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from sandyard.clock import Clock
from sandyard.ids import IdSource
from sandyard.virtual_clock import machine_of
from sandyard_api.database import Database
from sandyard_api.errors import ApiError, Conflict
from sandyard_api.quotas.service import Quotas
from sandyard_api.runners.asking import RunnerUnreachable
from sandyard_api.runners.service import Runners
from sandyard_api.sandboxes import moves
from sandyard_api.sandboxes.announcing import Announcer
from sandyard_api.sandboxes.models import Sandbox
from sandyard_api.sandboxes.requests import NewSandbox
from sandyard_api.sandboxes.service import Sandboxes
from sandyard_api.sandboxes.states import Desired, Observed, Request
from sandyard_api.sealing.service import Seal, fingerprint
from sandyard_api.snapshots.models import Snapshot
from sandyard_api.snapshots.service import Snapshots
from sandyard_api.warm_pools.keeping import WarmKeeper
from sandyard_api.warm_pools.models import NOBODY, WarmPool
from sandyard_api.warm_pools.service import WAITING

ATTEMPTS = 3
"""How many that do not answer are met before one is made anew."""
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

log = structlog.get_logger()


class Environments(Protocol):
    """Where a sandbox's variables are changed."""

    async def change(self, runner_url: str, sandbox_id: str, variables: Mapping[str, str]) -> None:
        """Set them for all processes to come. Raises `RunnerUnreachable` when the daemon does not take them."""


class WarmCreates:
    """Creates sandboxes, from a pool where one fits."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        ids: IdSource,
        *,
        seal: Seal,
        sandboxes: Sandboxes,
        snapshots: Snapshots,
        runners: Runners,
        quotas: Quotas,
        announcer: Announcer,
        keeper: WarmKeeper,
        environments: Environments,
    ) -> None:
        self._database = database
        self._clock = clock
        self._machine = machine_of(clock)
        self._ids = ids
        self._seal = seal
        self._sandboxes = sandboxes
        self._snapshots = snapshots
        self._runners = runners
        self._quotas = quotas
        self._announcer = announcer
        self._keeper = keeper
        self._environments = environments

    async def create(self, organization_id: str, wanted: NewSandbox) -> Sandbox:
        """A started one at once, else as `Sandboxes.create` makes it; raises the same errors."""
        for _ in range(ATTEMPTS):
            if not _may_be_warm(wanted) or not await self._is_one_waiting():
                break
            taken = await self._take(organization_id, wanted)
            if taken is None:
                break
            if (row := await self._hand_over(*taken)) is not None:
                return row
        return await self._sandboxes.create(organization_id, wanted)

    async def _is_one_waiting(self) -> bool:
        """Without a lock, so that a create which no pool serves costs no more than a look."""
        async with self._database.reading() as db:
            return await db.scalar(select(Sandbox.id).where(*WAITING).limit(1)) is not None

    async def _take(self, organization_id: str, wanted: NewSandbox) -> tuple[Sandbox, str] | None:
        """One that nobody else gets from now on, and its runner's URL. Raises `Conflict`, `BadRequest`."""
        try:
            async with self._database.transaction() as db:
                snapshot = await self._snapshots.use(db, organization_id, wanted.snapshot or "")
                if wanted.env and _starts_a_program(snapshot):
                    return None
                await self._quotas.check_room(
                    db, organization_id, cpu=snapshot.cpu, memory=snapshot.memory_gib, disk=snapshot.disk_gib
                )
                row = await self._take_row(db, organization_id, wanted, snapshot)
                return None if row is None else (row, await self._runners.url(db, row.runner_id) or "")
        except IntegrityError as error:
            raise Conflict(f"Sandbox with name {wanted.name} already exists") from error

    async def _take_row(
        self, db: AsyncSession, organization_id: str, wanted: NewSandbox, snapshot: Snapshot
    ) -> Sandbox | None:
        pools = select(WarmPool.id).where(
            WarmPool.snapshot_id == snapshot.id, WarmPool.organization_id.in_((organization_id, NOBODY))
        )
        fitting = (
            select(Sandbox.id)
            .where(
                *WAITING,
                Sandbox.warm_pool_id.in_(pools),
                Sandbox.runner_id.in_(self._runners.alive()),
                Sandbox.cpu == snapshot.cpu,
                Sandbox.memory_gib == snapshot.memory_gib,
                Sandbox.disk_gib == snapshot.disk_gib,
            )
            .order_by(Sandbox.organization_id == NOBODY, Sandbox.created_at)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        values = self._values(organization_id, wanted) | {"name": wanted.name or Sandbox.id}
        return await db.scalar(
            update(Sandbox)
            .where(Sandbox.id == fitting.scalar_subquery(), *WAITING)
            .values(**values)
            .returning(Sandbox)
            .execution_options(synchronize_session=False, populate_existing=True)
        )

    def _values(self, organization_id: str, wanted: NewSandbox) -> dict[str, Any]:
        now, token = self._clock.now(), self._ids.token()
        return {
            "organization_id": organization_id,
            "env": wanted.env,
            "labels": wanted.labels,
            "public": wanted.public,
            "auto_stop_minutes": wanted.auto_stop_minutes,
            "auto_pause_minutes": wanted.auto_pause_minutes,
            "auto_archive_minutes": wanted.auto_archive_minutes,
            "auto_delete_minutes": wanted.auto_delete_minutes,
            "auto_destroy_at": now + timedelta(minutes=wanted.ttl_minutes) if wanted.ttl_minutes else None,
            "preview_token_hash": fingerprint(token),
            "preview_token_sealed": self._seal.close(token),
            "created_at": now,
            "claimed_at": self._machine.now(),
        }

    async def _hand_over(self, row: Sandbox, runner_url: str) -> Sandbox | None:
        """The user's sandbox; `None` for one that does not answer, which is then removed."""
        claimed_at = row.claimed_at
        variables = {"DAYTONA_ORGANIZATION_ID": row.organization_id, **row.env}
        try:
            await self._environments.change(runner_url, row.id, variables)
        except RunnerUnreachable as error:
            log.warning("warm_sandbox_silent", sandbox_id=row.id, reason=str(error))
            await self._discard(row, f"it did not answer when it was claimed: {error}")
            return None
        owned = await self._own(row.id, claimed_at)
        if owned is None:
            await self._discard(row, "it ended while it was being claimed")
            return None
        self._keeper.note_claim()
        await self._announcer.claimed(owned)
        return owned

    async def _own(self, sandbox_id: str, claimed_at: datetime | None) -> Sandbox | None:
        now = self._clock.now()
        async with self._database.transaction() as db:
            owned = await db.scalar(
                update(Sandbox)
                .where(
                    Sandbox.id == sandbox_id,
                    Sandbox.warm_pool_id.is_not(None),
                    Sandbox.claimed_at == claimed_at,
                    Sandbox.observed == Observed.STARTED,
                    Sandbox.desired == Desired.STARTED,
                )
                .values(warm_pool_id=None, last_activity_at=now, updated_at=now, progressed_at=now)
                .returning(Sandbox)
                .execution_options(synchronize_session=False, populate_existing=True)
            )
            if owned is not None:
                moves.record(db, owned, cause="claimed from a warm pool by a request", at=now)
        return owned

    async def _discard(self, row: Sandbox, cause: str) -> None:
        """Remove it at once, which also frees the name that the user asked for."""
        try:
            async with self._database.transaction() as db:
                fresh = await db.get(Sandbox, row.id)
                if fresh is None or fresh.desired is Desired.DESTROYED:
                    return
                done = await self._sandboxes.ask(db, fresh, Request.DESTROY, cause=cause)
        except ApiError as error:
            log.info("warm_sandbox_stays", sandbox_id=row.id, reason=str(error))
            return
        await self._sandboxes.announce(done)


def _may_be_warm(wanted: NewSandbox) -> bool:
    """Whether nothing is asked for that must be there when a sandbox is made."""
    if wanted.build is not None or wanted.mounts or wanted.user is not None or wanted.secrets or wanted.linked:
        return False
    if wanted.outbound_proxy is not None:
        return False
    if any(value not in (None, False) for value in wanted.network.columns().values()):
        return False
    return all(VARIABLE.fullmatch(name) for name in wanted.env)


def _starts_a_program(snapshot: Snapshot) -> bool:
    """Whether something runs in a warm sandbox already, which would have to see the user's variables."""
    return not snapshot.is_general and bool(snapshot.entrypoint or snapshot.image_entrypoint)
