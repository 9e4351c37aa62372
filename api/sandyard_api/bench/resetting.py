"""Removing all that tests left, and organizations that keep tests apart."""

from collections.abc import Sequence
from contextlib import suppress

from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.exc import IntegrityError

from sandyard.bus import Bus, BusError
from sandyard.clock import Clock
from sandyard.ids import IdSource, RandomIds, SeededIds, UsedDatabase
from sandyard_api.api_keys.models import ApiKey
from sandyard_api.api_keys.service import OWNER_KEY_NAME, PERMISSIONS, ApiKeys
from sandyard_api.bench.bodies import OrganizationView, ResetView
from sandyard_api.database import Base, Database
from sandyard_api.errors import BadRequest, Conflict, Forbidden, MovedMeanwhile, NotFound
from sandyard_api.jobs.wire import CHANNEL_KEYS, KeyGrant
from sandyard_api.organizations.models import Organization
from sandyard_api.organizations.service import OWNER
from sandyard_api.sandboxes.models import Sandbox
from sandyard_api.sandboxes.service import Sandboxes
from sandyard_api.sandboxes.states import Desired, Observed, Request
from sandyard_api.sealing.service import fingerprint
from sandyard_api.snapshots.models import Snapshot
from sandyard_api.users.models import User
from sandyard_api.wakeups import Wakeups
from sandyard_api.warm_pools.models import NOBODY, WarmPool

KEPT = frozenset({"organizations", "users", "api_keys", "snapshots", "regions"})
"""Tables that a reset leaves alone: who may come in, and what an installation is set up with."""
ENDING_SECONDS = 60.0
ENDING_ATTEMPTS = 5
RECHECK_SECONDS = 0.5


async def begin_seed(database: Database, ids: IdSource) -> None:
    """Let a run's identifiers begin with the seed, whatever setting up has drawn. Raises `UsedDatabase`."""
    if not isinstance(ids, SeededIds):
        return
    async with database.reading() as db:
        if await db.scalar(select(Sandbox.id).limit(1)) is not None:
            raise UsedDatabase("SANDYARD_SEED needs a database without sandboxes: run `sandyard down` before")
    ids.restart()


def check_owner(grant: KeyGrant) -> None:
    """Raises `Forbidden` for whoever is not the installation's owner."""
    if not grant.is_owner:
        raise Forbidden("this is for the key of the installation's owner")


class Resetting:
    """Ends what runs, then deletes the rows. Raises `Conflict` when sandboxes cannot be ended in time."""

    def __init__(
        self,
        database: Database,
        bus: Bus,
        clock: Clock,
        ids: IdSource,
        *,
        sandboxes: Sandboxes,
        changes: Wakeups,
        keys: ApiKeys,
    ) -> None:
        self._database = database
        self._bus = bus
        self._clock = clock
        self._ids = ids
        self._sandboxes = sandboxes
        self._changes = changes
        self._keys = keys

    async def organization(self, organization_id: str) -> ResetView:
        """Remove the sandboxes and records of one organization; its keys stay."""
        return await self._empty([organization_id])

    async def everything(self, grant: KeyGrant, seed: int | None) -> ResetView:
        """Remove everybody's, and all organizations but the first. Raises `Forbidden` and `BadRequest`."""
        check_owner(grant)
        if seed is not None and not isinstance(self._ids, SeededIds):
            raise BadRequest("identifiers are random here; start Sandyard with SANDYARD_SEED to have them by seed")
        async with self._database.reading() as db:
            every = list(await db.scalars(select(Organization.id).where(Organization.id != NOBODY)))
        done = await self._empty(every, [one for one in every if one != grant.organization_id])
        if isinstance(self._ids, SeededIds):
            self._ids.restart(seed)
        return done

    async def new_organization(self, grant: KeyGrant, name: str | None) -> OrganizationView:
        """Raises `Forbidden` unless the owner asks, and `Conflict` for a name that is taken."""
        check_owner(grant)
        # Not from the seed: these are credentials, and asking for one must not shift the identifiers of a run.
        ids, now = RandomIds(), self._clock.now()
        key = f"sy_{ids.token(40)}"
        made = Organization(id=ids.uuid(), name=name or f"bench-{ids.token(12)}", created_at=now)
        user = User(id=ids.uuid(), organization_id=made.id, name=OWNER, email="owner@localhost", created_at=now)
        async with self._database.transaction() as db:
            if await db.scalar(select(Organization.id).where(Organization.name == made.name)):
                raise Conflict(f"Organization with name {made.name} already exists")
            db.add(made)
            await db.flush()
            db.add(user)
            await db.flush()
            db.add(
                ApiKey(
                    id=ids.uuid(),
                    organization_id=made.id,
                    user_id=user.id,
                    name=OWNER_KEY_NAME,
                    hash=fingerprint(key),
                    prefix=key[:3],
                    suffix=key[-3:],
                    permissions=list(PERMISSIONS),
                    created_at=now,
                )
            )
        return OrganizationView(made.id, made.name, key)

    async def remove_organization(self, grant: KeyGrant, organization_id: str) -> ResetView:
        """With all that it has. Raises `NotFound`, and `BadRequest` for the owner's own."""
        check_owner(grant)
        if organization_id == grant.organization_id:
            raise BadRequest("the installation's own organization cannot be removed; reset it")
        async with self._database.reading() as db:
            if await db.get(Organization, organization_id) is None:
                raise NotFound(f"Organization with ID {organization_id} not found")
        return await self._empty([organization_id], [organization_id])

    async def _empty(self, organization_ids: Sequence[str], removed: Sequence[str] = ()) -> ResetView:
        """End every sandbox, then delete every row of these organizations, and those of them that are to be `removed`.

        What is made meanwhile is ended as well. Raises `Conflict` when it takes too long.
        """
        deadline = self._clock.monotonic() + ENDING_SECONDS
        ended: set[str] = set()
        while True:
            ended |= await self._end_sandboxes(organization_ids, deadline)
            rows = await self._delete_rows(organization_ids, removed)
            if rows is not None:
                break
            if self._clock.monotonic() > deadline:
                raise Conflict("something is made as fast as it is removed")
        if removed:
            self._keys.forget()
            with suppress(BusError):  # proxies forget by themselves in a few seconds
                await self._bus.publish(CHANNEL_KEYS, b"")
        return ResetView(len(ended), rows, len(removed))

    async def _end_sandboxes(self, organization_ids: Sequence[str], deadline: float) -> set[str]:
        """Delete every living sandbox and wait until its runner has removed it; their warm pools are gone before.

        Gives their ids.
        """
        async with self._database.transaction() as db:
            await db.execute(delete(WarmPool).where(WarmPool.organization_id.in_(organization_ids)))
        ended: set[str] = set()
        living = await self._living(organization_ids)
        while living:
            for row in living:
                if row.desired is not Desired.DESTROYED:
                    await self._end(row.id)
            ended.update(row.id for row in living)
            with self._changes.watch(*(row.id for row in living)) as watch:
                living = await self._living(organization_ids)
                seconds = deadline - self._clock.monotonic()
                if living and seconds <= 0:
                    raise Conflict(f"sandboxes could not be removed: {', '.join([row.id for row in living][:5])}")
                if living:
                    await watch.wait(min(seconds, RECHECK_SECONDS))
        return ended

    async def _end(self, sandbox_id: str) -> None:
        for _ in range(ENDING_ATTEMPTS):
            with suppress(MovedMeanwhile):
                await self._ask_to_end(sandbox_id)
                return
        raise Conflict(f"sandbox {sandbox_id} does not hold still")

    async def _ask_to_end(self, sandbox_id: str) -> None:
        async with self._database.transaction() as db:
            row = await db.get(Sandbox, sandbox_id)
            if row is None or row.desired is Desired.DESTROYED:
                return
            done = await self._sandboxes.ask(db, row, Request.DESTROY, cause="removed by a reset")
        await self._sandboxes.announce(done)

    async def _living(self, organization_ids: Sequence[str]) -> list[Sandbox]:
        async with self._database.reading() as db:
            return list(await db.scalars(select(Sandbox).where(*_living_of(organization_ids))))

    async def _delete_rows(self, organization_ids: Sequence[str], removed: Sequence[str]) -> int | None:
        """Every row that belongs to these organizations; what hangs on them goes by its foreign keys.

        `None`, and nothing deleted, when a sandbox was made meanwhile: without its row it would be nobody's.
        """
        rows = 0
        try:
            async with self._database.transaction() as db:
                for table in reversed(Base.metadata.sorted_tables):
                    if table.name not in KEPT and "organization_id" in table.columns:
                        theirs = table.c.organization_id.in_(organization_ids)
                        if table is Sandbox.__table__:
                            theirs &= Sandbox.observed == Observed.DESTROYED
                        gone = await db.execute(delete(table).where(theirs))
                        rows += max(0, getattr(gone, "rowcount", 0))
                # Last: a create that we have waited for, because it held a row of ours, is seen.
                if await db.scalar(select(Sandbox.id).where(*_living_of(organization_ids)).limit(1)) is not None:
                    raise _MadeMeanwhile
                for kind in (Snapshot, ApiKey, User):
                    await db.execute(delete(kind).where(kind.organization_id.in_(removed)))
                await db.execute(delete(Organization).where(Organization.id.in_(removed)))
        except (_MadeMeanwhile, IntegrityError):
            return None
        return rows


class _MadeMeanwhile(Exception):
    """Undoes a transaction."""


def _living_of(organization_ids: Sequence[str]) -> tuple[ColumnElement[bool], ...]:
    """The condition for sandboxes of these organizations that are not gone yet."""
    return Sandbox.organization_id.in_(organization_ids), Sandbox.observed != Observed.DESTROYED
