"""Runners: who they are and whether they are alive."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from sandyard.clock import Clock
from sandyard_api.database import Database
from sandyard_api.errors import BadRequest, Unprocessable
from sandyard_api.runners.models import Runner
from sandyard_api.wakeups import Wakeups

CHANNEL_RUNNERS = "runners"
"""Hint between replicas: a runner is there. Payload: `ANYBODY`."""
ANYBODY = "any"
REFUSED = "refused"
"""What a capability table says of that which a runtime cannot do."""


class Runners:
    """The registry of runners, kept by their heartbeats."""

    def __init__(self, database: Database, clock: Clock, arrivals: Wakeups, *, lost_seconds: float) -> None:
        self._database = database
        self._clock = clock
        self._arrivals = arrivals
        self._lost = timedelta(seconds=lost_seconds)
        self._at_work = asyncio.Event()

    async def beat(self, runner_id: str, *, url: str, runtime: str, capabilities: Mapping[str, object]) -> None:
        """Register a runner, or note that it is alive and where."""
        now = self._clock.now()
        async with self._database.transaction() as db:
            row = await db.get(Runner, runner_id)
            if row is None:
                row = Runner(id=runner_id, created_at=now)
                db.add(row)
            row.url, row.runtime, row.capabilities, row.last_seen_at = url, runtime, dict(capabilities), now
        await self._arrivals.announce(ANYBODY)

    async def all(self) -> Sequence[Runner]:
        """Every runner that was ever seen, by id."""
        async with self._database.reading() as db:
            return (await db.scalars(select(Runner).order_by(Runner.id))).all()

    def is_alive(self, runner: Runner) -> bool:
        """Whether it was heard of lately."""
        return self._clock.now() - runner.last_seen_at <= self._lost

    def alive(self) -> Select[str]:
        """A query for the ids of those that were heard of lately."""
        return select(Runner.id).where(Runner.last_seen_at >= self._clock.now() - self._lost)

    async def wait_for_one(self, deadline: float) -> None:
        """Return when somebody can take a new sandbox. Raises `BadRequest` at `deadline` of the monotonic clock."""
        with self._arrivals.watch(ANYBODY) as watch:
            while not await self._is_one_alive():
                left = deadline - self._clock.monotonic()
                if left <= 0:
                    raise BadRequest("No available runners")
                await watch.wait(left)

    def note_at_work(self) -> None:
        """A runner asked for jobs: it is registered, and has compared its sandboxes with what we believed of them."""
        self._at_work.set()

    async def at_work(self) -> None:
        """Return when a runner has asked this process for jobs since it started."""
        await self._at_work.wait()

    async def check(self, db: AsyncSession, runner_id: str | None, capability: str, refusal: str) -> None:
        """Raise `Unprocessable` with that text and the reason where the runner said that it cannot do this.

        Without a runner the one that was heard of last is asked: a new sandbox is made there.
        """
        newest = select(Runner).order_by(Runner.last_seen_at.desc()).limit(1)
        row = await db.get(Runner, runner_id) if runner_id else await db.scalar(newest)
        told = row.capabilities.get(capability) if row else None
        if isinstance(told, dict) and told.get("enforcement") == REFUSED:
            raise Unprocessable(f"{refusal}: {told.get('detail', 'its runtime cannot do it')}")

    async def check_some(self, db: AsyncSession, capability: str, refusal: str) -> None:
        """The same where every runner that is alive said so: none could take such a sandbox."""
        since = self._clock.now() - self._lost
        alive = (await db.scalars(select(Runner.id).where(Runner.last_seen_at >= since))).all()
        for number, runner_id in enumerate(alive, start=1):
            try:
                await self.check(db, runner_id, capability, refusal)
            except Unprocessable:
                if number == len(alive):
                    raise
            else:
                return

    async def url(self, db: AsyncSession, runner_id: str | None) -> str | None:
        """Base URL of a runner's API."""
        return await db.scalar(select(Runner.url).where(Runner.id == runner_id))

    async def _is_one_alive(self) -> bool:
        async with self._database.reading() as db:
            return await db.scalar(self.alive().limit(1)) is not None
