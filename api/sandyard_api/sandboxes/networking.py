"""Changing the way out of sandboxes. *Source:* control-plane.md 5."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from sandyard.clock import Clock
from sandyard_api.database import Database
from sandyard_api.errors import BadRequest, Unavailable
from sandyard_api.jobs.models import JobRow, JobState
from sandyard_api.jobs.wire import JobKind
from sandyard_api.runners.service import Runners
from sandyard_api.sandboxes.models import Sandbox
from sandyard_api.sandboxes.moves import Move
from sandyard_api.sandboxes.network_requests import NETWORK_NEEDS
from sandyard_api.sandboxes.service import Sandboxes
from sandyard_api.sandboxes.states import Request
from sandyard_api.wakeups import Wakeups

NOT_IN_FORCE = (
    "The new settings are not in force yet: the runner did not confirm them in time. They are kept, and it gets them as"
    " soon as it answers."
)


async def check_held(db: AsyncSession, runners: Runners, runner_id: str | None, values: Mapping[str, Any]) -> None:
    """Raise `Unprocessable` for what the runtime would not hold; `None` is any runner that is there."""
    for column, (capability, words) in NETWORK_NEEDS.items():
        if values.get(column):
            await runners.check(db, runner_id, capability, f"{words} is not supported for this sandbox")


class Networking:
    """Changes the way out of a sandbox. Takes an organization and an id or name; raises `NotFound`."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        sandboxes: Sandboxes,
        runners: Runners,
        changes: Wakeups,
        wait_seconds: float,
    ) -> None:
        self._database = database
        self._clock = clock
        self._sandboxes = sandboxes
        self._runners = runners
        self._changes = changes
        self._wait_seconds = wait_seconds

    async def change(self, organization_id: str, key: str, values: Mapping[str, Any], cause: str) -> Sandbox:
        """Write the columns and return when the runner holds them; a stopped sandbox gets them at its start.

        Raises `Conflict` while its state changes, `BadRequest` with the runner's reason, the columns as before, and
        `Unavailable` when the runner says nothing in time: then they stay written, and it gets them when it is back.
        """
        before: dict[str, Any] = {}
        job_id: str | None = None

        async def ask(db: AsyncSession, row: Sandbox) -> list[Move]:
            nonlocal job_id
            await check_held(db, self._runners, row.runner_id, values)
            before.update({name: getattr(row, name) for name in values})
            moves = await self._sandboxes.ask(db, row, Request.NETWORK, cause=cause, **values)
            job_id = await db.scalar(
                select(JobRow.id).where(
                    JobRow.sandbox_id == row.id, JobRow.kind == JobKind.NETWORK, JobRow.state == JobState.OPEN
                )
            )
            return moves

        row = await self._sandboxes.apply(organization_id, key, ask, wait=False)
        reason = await self._outcome(row.id, job_id) if job_id is not None else None
        if reason is not None:
            async with self._database.transaction() as db:
                await db.execute(update(Sandbox).where(Sandbox.id == row.id).values(**before))
            raise BadRequest(reason)
        return await self._sandboxes.get(organization_id, row.id)

    async def _outcome(self, sandbox_id: str, job_id: str) -> str | None:
        """Why the job failed; `None` when it did not or is void. Raises `Unavailable` while it is open."""
        deadline = self._clock.monotonic() + self._wait_seconds
        with self._changes.watch(sandbox_id) as watch:
            while True:
                async with self._database.reading() as db:
                    job = await db.scalar(select(JobRow).where(JobRow.id == job_id))
                if job is None or job.state is not JobState.OPEN:
                    return job.reason if job is not None and job.state is JobState.FAILED else None
                left = deadline - self._clock.monotonic()
                if left <= 0:
                    raise Unavailable(NOT_IN_FORCE)
                await watch.wait(left)
