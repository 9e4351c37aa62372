"""Runners: who they are and whether they are alive."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from sandyard.clock import Clock
from sandyard_api.database import Database
from sandyard_api.errors import BadRequest
from sandyard_api.runners.models import Runner


class Runners:
    """The registry of runners, kept by their heartbeats."""

    def __init__(self, database: Database, clock: Clock, *, lost_seconds: float) -> None:
        self._database = database
        self._clock = clock
        self._lost = timedelta(seconds=lost_seconds)

    async def beat(self, runner_id: str, *, url: str, runtime: str, capabilities: Mapping[str, object]) -> None:
        """Register a runner, or note that it is alive and where."""
        now = self._clock.now()
        async with self._database.transaction() as db:
            row = await db.get(Runner, runner_id)
            if row is None:
                row = Runner(id=runner_id, created_at=now)
                db.add(row)
            row.url, row.runtime, row.capabilities, row.last_seen_at = url, runtime, dict(capabilities), now

    async def all(self) -> Sequence[Runner]:
        """Every runner that was ever seen, by id."""
        async with self._database.reading() as db:
            return (await db.scalars(select(Runner).order_by(Runner.id))).all()

    def is_alive(self, runner: Runner) -> bool:
        """Whether it was heard of lately."""
        return self._clock.now() - runner.last_seen_at <= self._lost

    async def require_one(self, db: AsyncSession) -> None:
        """Raise `BadRequest` when nobody could take a new sandbox."""
        seen = await db.scalar(select(Runner.id).where(Runner.last_seen_at >= self._clock.now() - self._lost).limit(1))
        if seen is None:
            raise BadRequest("No available runners")

    async def url(self, db: AsyncSession, runner_id: str | None) -> str | None:
        """Base URL of a runner's API."""
        return await db.scalar(select(Runner.url).where(Runner.id == runner_id))
