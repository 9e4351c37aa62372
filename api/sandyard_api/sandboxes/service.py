"""What can be done with sandboxes: create, find, start, stop, delete, and wait for it."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from sandyard.clock import Clock
from sandyard.ids import IdSource
from sandyard_api.database import Database
from sandyard_api.errors import BadRequest, Conflict
from sandyard_api.jobs.queue import ANY_RUNNER, Order, add_job, void_open_job, with_open_job
from sandyard_api.jobs.wire import JobKind
from sandyard_api.quotas.service import Quotas
from sandyard_api.runners.service import Runners
from sandyard_api.sandboxes import linking, moves
from sandyard_api.sandboxes.announcing import Announcer
from sandyard_api.sandboxes.images import fork_image
from sandyard_api.sandboxes.models import INHERITED, BuildLogChunk, Sandbox, StateChange
from sandyard_api.sandboxes.moves import Move, not_found
from sandyard_api.sandboxes.network_requests import NETWORK_NEEDS
from sandyard_api.sandboxes.orders import order_of
from sandyard_api.sandboxes.requests import EPHEMERAL_PAUSE, EXCLUSIVE, NewSandbox
from sandyard_api.sandboxes.rows import new_row
from sandyard_api.sandboxes.states import REQUESTS, SHOWN, Desired, Observed, Request, Shown
from sandyard_api.sealing.service import Seal, fingerprint
from sandyard_api.secrets.service import Secrets
from sandyard_api.snapshots.service import Snapshots
from sandyard_api.storage.service import Contexts
from sandyard_api.volumes.service import Use, Volumes
from sandyard_api.wakeups import Wakeups, Watch

AT_REST = frozenset(
    (
        *(Shown.STARTED, Shown.STOPPED, Shown.PAUSED, Shown.ARCHIVED),
        *(Shown.ERROR, Shown.BUILD_FAILED, Shown.DESTROYED),
    )
)
FRESH_START = frozenset({JobKind.START, JobKind.RESTORE, JobKind.RECOVER})
"""Work that gives a sandbox a new start, and with it new tokens."""

NEEDS = {
    Request.PAUSE: ("pause", "Pausing"),
    Request.FORK: ("fork", "Forking"),
    Request.RESIZE: ("resize", "Resizing"),
    Request.ARCHIVE: ("archive", "Archiving"),
    Request.SNAPSHOT: ("snapshot", "Making a snapshot"),
}
"""What a runtime must be able to do for a request, and how clients are told that it cannot."""


class Sandboxes:
    """The verbs. Every method takes an organization and an id or name, and raises `NotFound` for what is not theirs."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        ids: IdSource,
        *,
        seal: Seal,
        runners: Runners,
        announcer: Announcer,
        changes: Wakeups,
        quotas: Quotas,
        snapshots: Snapshots,
        contexts: Contexts,
        volumes: Volumes,
        secrets: Secrets,
        region: str,
        wait_seconds: float,
    ) -> None:
        self._database = database
        self._clock = clock
        self._ids = ids
        self._seal = seal
        self._runners = runners
        self._announcer = announcer
        self._changes = changes
        self._quotas = quotas
        self._snapshots = snapshots
        self._contexts = contexts
        self._volumes = volumes
        self._secrets = secrets
        self._region = region
        self._wait_seconds = wait_seconds

    async def create(self, organization_id: str, wanted: NewSandbox) -> Sandbox:
        """Make one and wait until it runs, but not where an image has to be fetched: clients show that.

        Raises `Conflict` for a name that is taken, `BadRequest` without a runner, beyond a limit, and for a snapshot or
        a build context that is not there, `NotFound` for a volume.
        """
        if wanted.build is not None:
            await self._contexts.require(organization_id, wanted.build.context_hashes)
        sandbox_id, deadline = self._ids.uuid(), self._clock.monotonic() + self._wait_seconds
        # A runner may be a moment later than we are; whoever asked in between shall not have to ask again.
        await self._runners.wait_for_one(deadline)
        with self._changes.watch(sandbox_id) as watch:
            try:
                async with self._database.transaction() as db:
                    row, use = await self.insert(db, organization_id, sandbox_id, wanted)
            except IntegrityError as error:
                raise Conflict(f"Sandbox with name {wanted.name} already exists") from error
            await self._announcer.moved(Move(row, None))
            await self._announcer.job_written(row.runner_id or ANY_RUNNER)
            await use.told()
            return row if row.dockerfile is not None else await self._wait(sandbox_id, watch, deadline)

    async def get(self, organization_id: str, key: str) -> Sandbox:
        """By id, destroyed ones included; else by name among the living."""
        async with self._database.reading() as db:
            return await find(db, organization_id, key)

    async def history(self, organization_id: str, key: str) -> tuple[Sandbox, Sequence[StateChange]]:
        """One as `get` finds it, and its changes of state, oldest first."""
        async with self._database.reading() as db:
            row = await find(db, organization_id, key)
            of_row = select(StateChange).where(StateChange.sandbox_id == row.id)
            return row, (await db.scalars(of_row.order_by(StateChange.number))).all()

    async def start(self, organization_id: str, key: str) -> Sandbox:
        """Start, resume or restore, and wait. Starting a started one changes nothing."""
        return await self.request(organization_id, key, Request.START)

    async def stop(self, organization_id: str, key: str, *, force: bool) -> Sandbox:
        """Stop and wait; an ephemeral one is deleted and not waited for."""
        return await self.request(organization_id, key, Request.STOP, force=force)

    async def pause(self, organization_id: str, key: str) -> Sandbox:
        """Hold its processes still; answers at once."""
        return await self.request(organization_id, key, Request.PAUSE, wait=False)

    async def archive(self, organization_id: str, key: str) -> Sandbox:
        """Keep the files of a stopped one and nothing else; answers at once."""
        return await self.request(organization_id, key, Request.ARCHIVE, wait=False)

    async def destroy(self, organization_id: str, key: str) -> Sandbox:
        """Delete, whatever it is doing; its name is free at once. Raises `BadRequest` while forks of it live."""
        async with self._database.transaction() as db:
            row = await find(db, organization_id, key, living=True)
            children = select(Sandbox.id).where(Sandbox.parent_id == row.id, Sandbox.desired != Desired.DESTROYED)
            if row.desired is not Desired.DESTROYED and await db.scalar(children.limit(1)) is not None:
                raise BadRequest(
                    "Cannot delete sandbox which has active fork children. The forks must be deleted first."
                )
            done = await self.ask(db, row, Request.DESTROY, cause="deleted by a request")
        await self.announce(done)
        return done[-1].row

    async def destroy_again(self, sandbox_id: str) -> None:
        """Write a new job for a deletion whose last job failed."""
        async with self._database.transaction() as db:
            row = await db.get(Sandbox, sandbox_id)
            if row is None or await with_open_job(db, [sandbox_id]):
                return
            row.progressed_at = self._clock.now()
            self._order(db, row, Order(JobKind.DESTROY), row.progressed_at)
        await self._announcer.job_written(row.runner_id or ANY_RUNNER)

    async def change(self, organization_id: str, key: str, **values: Any) -> Sandbox:
        """Write columns that are not part of the state."""
        async with self._database.transaction() as db:
            row = await find(db, organization_id, key, living=True)
            for name, value in values.items():
                setattr(row, name, value)
            row.updated_at = self._clock.now()
        await self._announcer.route_changed(row.id)
        return row

    async def set_ttl(self, organization_id: str, key: str, minutes: int) -> Sandbox:
        """Delete it `minutes` from now, whatever it does; 0 takes that back."""
        at = self._clock.now() + timedelta(minutes=minutes) if minutes else None
        return await self.change(organization_id, key, auto_destroy_at=at)

    async def set_auto_stop(self, organization_id: str, key: str, minutes: int) -> Sandbox:
        """Stop it when it is idle that long; 0 never. Raises `BadRequest` where it is paused then already."""
        row = await self.get(organization_id, key)
        if minutes and row.auto_pause_minutes:
            raise BadRequest(EXCLUSIVE)
        return await self.change(organization_id, row.id, auto_stop_minutes=minutes)

    async def set_auto_pause(self, organization_id: str, key: str, minutes: int) -> Sandbox:
        """Pause it when it is idle that long; 0 never. Raises `BadRequest` where it is stopped or deleted then."""
        row = await self.get(organization_id, key)
        if minutes and row.is_ephemeral:
            raise BadRequest(EPHEMERAL_PAUSE)
        if minutes and row.auto_stop_minutes:
            raise BadRequest(EXCLUSIVE)
        return await self.change(organization_id, row.id, auto_pause_minutes=minutes)

    async def touch(self, organization_id: str, key: str) -> None:
        """Note that it was used just now."""
        await self.change(organization_id, key, last_activity_at=self._clock.now())

    async def ask(
        self,
        db: AsyncSession,
        row: Sandbox,
        asked: Request,
        *,
        cause: str,
        order: Order | None = None,
        guard: ColumnElement[bool] | None = None,
        **values: Any,
    ) -> list[Move]:
        """Write a request and its job into the transaction; the caller announces the moves after the commit.

        `order` instead of the job that the request has by itself; `values` are written with the state.
        """
        now, before = self._clock.now(), (row.observed, row.desired)
        if asked is Request.STOP and row.is_ephemeral:
            stoppable = (*before, asked) in REQUESTS
            asked, order = (Request.DESTROY, None) if stoppable else (asked, order)
        await self._check(db, row, asked)
        order = order or order_of(row, asked)
        if order is not None and order.kind in FRESH_START:
            values |= self._fresh_tokens() | {"error_reason": None, "recoverable": False}
        if order is not None:
            # Before the sandbox, as a runner's words are taken in: the other way round either could wait for the other.
            # What only changes the network may still be open when the next request comes, whose work includes it.
            is_over = asked is Request.DESTROY or before[1] is Desired.ARCHIVED
            kinds = tuple(JobKind) if is_over else (JobKind.NETWORK,)
            await void_open_job(db, row.id, at=now, reason=f"{asked.value} was asked for meanwhile", kinds=kinds)
        move = await moves.request(db, row, asked, cause=cause, at=now, guard=guard, **values)
        linked = await self._destroy_linked(db, row) if asked is Request.DESTROY else []
        if order is None:
            return [move]
        if asked is Request.DESTROY and row.runner_id is None:
            gone = await moves.sight(
                db, move.row, Observed.DESTROYED, cause="no runner had it yet", at=now, asked_for=True
            )
            return [*linked, move, *([gone] if gone else [])]
        self._order(db, row, order, now)
        return [*linked, move]

    async def _destroy_linked(self, db: AsyncSession, owner: Sandbox) -> list[Move]:
        done: list[Move] = []
        for row in await linking.linked_to(db, owner.id):
            cause = f"deleted with {owner.name}, which it was linked to"
            done += await self.ask(db, row, Request.DESTROY, cause=cause)
        return done

    async def announce(self, done: list[Move]) -> None:
        """Tell of moves of `ask` after the commit."""
        await self._announcer.moved(*done)
        await self._announcer.job_written(done[-1].row.runner_id or ANY_RUNNER)

    async def request(
        self, organization_id: str, key: str, asked: Request, *, force: bool = False, wait: bool = True
    ) -> Sandbox:
        """Ask as a user does; `wait` until it came to rest or the time is over."""

        async def ask(db: AsyncSession, row: Sandbox) -> list[Move]:
            order = Order(JobKind.STOP, force=force) if asked is Request.STOP else None
            return await self.ask(db, row, asked, cause=f"{asked.value} by a request", order=order)

        return await self.apply(organization_id, key, ask, wait=wait)

    async def apply(
        self,
        organization_id: str,
        key: str,
        work: Callable[[AsyncSession, Sandbox], Awaitable[list[Move]]],
        *,
        wait: bool,
    ) -> Sandbox:
        """Do work that moves one sandbox in a transaction, announce it, and wait as asked."""
        async with self._database.reading() as db:
            sandbox_id = (await find(db, organization_id, key, living=True)).id
        with self._changes.watch(sandbox_id) as watch:
            async with self._database.transaction() as db:
                row = await find(db, organization_id, sandbox_id, living=True)
                done = await work(db, row)
            await self.announce(done)
            if not wait or done[-1].row.desired is Desired.DESTROYED:
                return done[-1].row
            return await self._wait(sandbox_id, watch, self._clock.monotonic() + self._wait_seconds)

    async def insert_fork(self, db: AsyncSession, parent: Sandbox, name: str | None) -> Sandbox:
        """A row like the parent's and the job that makes it; raises `IntegrityError` for a name that is taken."""
        await self._check(db, parent, Request.FORK)
        now, child_id = self._clock.now(), self._ids.uuid()
        child = Sandbox(
            **{column: getattr(parent, column) for column in INHERITED},
            **self._fresh_tokens(),
            id=child_id,
            name=name or child_id,
            image=fork_image(child_id),
            parent_id=parent.id,
            observed=Observed.FORKING,
            desired=Desired.STARTED,
            recoverable=False,
            progressed_at=now,
            created_at=now,
            updated_at=now,
            last_activity_at=now,
        )
        await self._quotas.check(db, child)
        db.add(child)
        await db.flush()
        moves.record(db, child, cause=f"forked from {parent.name} by a request", at=now)
        self._order(db, child, Order(JobKind.FORK, source_id=parent.id), now)
        return child

    async def _check(self, db: AsyncSession, row: Sandbox, asked: Request) -> None:
        """Raise for what this sandbox's own settings or its runtime do not allow, where the state would."""
        if asked is Request.ARCHIVE and row.is_ephemeral:
            raise BadRequest("Ephemeral sandboxes cannot be archived")
        if asked in NEEDS and (row.observed, row.desired, asked) in REQUESTS:
            capability, words = NEEDS[asked]
            await self._runners.check(db, row.runner_id, capability, f"{words} is not supported for this sandbox")

    def _order(self, db: AsyncSession, row: Sandbox, order: Order, at: datetime) -> None:
        add_job(db, order, job_id=self._ids.uuid(), sandbox_id=row.id, runner_id=row.runner_id, at=at)

    async def _wait(self, sandbox_id: str, watch: Watch, deadline: float) -> Sandbox:
        """The row when it came to rest, or as it is when the time is over."""
        while True:
            async with self._database.reading() as db:
                row = await db.get_one(Sandbox, sandbox_id)
            left = deadline - self._clock.monotonic()
            if SHOWN[row.observed, row.desired] in AT_REST or left <= 0:
                return row
            await watch.wait(left)

    async def insert(
        self,
        db: AsyncSession,
        organization_id: str,
        sandbox_id: str,
        wanted: NewSandbox,
        *,
        warm_pool_id: str | None = None,
    ) -> tuple[Sandbox, Use]:
        """Write its row and the job that makes it; `warm_pool_id`: the pool it is to wait in. Raises `BadRequest`."""
        snapshot = await self._snapshots.use(db, organization_id, wanted.snapshot) if wanted.snapshot else None
        mounts = await self._secrets.resolve(db, organization_id, wanted.secrets)
        row = new_row(wanted, snapshot, organization_id=organization_id, sandbox_id=sandbox_id, at=self._clock.now())
        row.region, row.secrets = self._region, mounts
        row.outbound_proxy_sealed = self._seal.close(wanted.outbound_proxy) if wanted.outbound_proxy else None
        if wanted.linked is not None:
            owner = await find(db, organization_id, wanted.linked, living=True)
            await linking.check_owner(db, self._runners, owner)
            row.linked_sandbox_id, row.runner_id = owner.id, owner.runner_id
        for column, value in self._fresh_tokens().items():
            setattr(row, column, value)
        for column, (capability, words) in NETWORK_NEEDS.items():
            if getattr(row, column):
                await self._runners.check(db, None, capability, f"{words} is not supported for this sandbox")
        row.warm_pool_id, now = warm_pool_id, row.created_at
        await self._quotas.check(db, row)
        if wanted.mounts:
            await self._runners.check_some(db, "volumes", "Volumes cannot be mounted")
        use = await self._volumes.use(db, organization_id, wanted.mounts)
        row.volumes = use.entries
        db.add(row)
        await db.flush()
        moves.record(db, row, cause="made for a warm pool" if warm_pool_id else "created by a request", at=now)
        self._order(db, row, Order(JobKind.CREATE), now)
        if wanted.build is not None:
            # Clients wait for at least one line.
            db.add(BuildLogChunk(sandbox_id=row.id, at=now, text=wanted.build.first_words()))
        return row, use

    def _fresh_tokens(self) -> dict[str, Any]:
        token = self._ids.token()
        return {
            "preview_token_hash": fingerprint(token),
            "preview_token_sealed": self._seal.close(token),
            "door_secret_sealed": self._seal.close(self._ids.token(48)),
        }


async def find(db: AsyncSession, organization_id: str, key: str, *, living: bool = False) -> Sandbox:
    """By id first, then by name among the living. `living`: a destroyed one does not count. Raises `NotFound`.

    What waits in a warm pool is nobody's: whoever could use it before it is claimed could leave something in it.
    """
    theirs = select(Sandbox).where(Sandbox.organization_id == organization_id, Sandbox.warm_pool_id.is_(None))
    row = await db.scalar(theirs.where(Sandbox.id == key))
    if row is None:
        row = await db.scalar(theirs.where(Sandbox.name == key, Sandbox.desired != Desired.DESTROYED))
    if row is None or (living and row.observed is Observed.DESTROYED):
        raise not_found(key)
    return row
