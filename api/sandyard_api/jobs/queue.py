"""The queue of jobs in the database: written in the transaction of the caller, claimed and ended under a lease."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

import msgspec
from sqlalchemy import and_, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from sandyard_api.jobs.models import JobRow, JobState
from sandyard_api.jobs.wire import JobKind, Resources

MAX_ATTEMPTS = 5
ANY_RUNNER = "*"
"""Key of hints for jobs that any runner may take."""


async def void_open_job(
    db: AsyncSession, sandbox_id: str, *, at: datetime, reason: str, kinds: Collection[JobKind] = tuple(JobKind)
) -> None:
    """Whoever holds a job of that sandbox, of one of these kinds, learns at its next word that nobody wants it."""
    await db.execute(
        update(JobRow)
        .where(JobRow.sandbox_id == sandbox_id, JobRow.state == JobState.OPEN, JobRow.kind.in_(kinds))
        .values(state=JobState.VOID, finished_at=at, reason=reason)
    )


class Order(msgspec.Struct, frozen=True):
    """What a job is to do, beside for which sandbox; see `jobs.wire.Job`."""

    kind: JobKind
    force: bool = False
    image: str | None = None
    source_id: str | None = None
    resources: Resources | None = None
    stay_stopped: bool = False


def add_job(
    db: AsyncSession, order: Order, *, job_id: str, sandbox_id: str, runner_id: str | None, at: datetime
) -> JobRow:
    """Write a job; the sandbox must have no open one."""
    row = JobRow(
        id=job_id,
        sandbox_id=sandbox_id,
        runner_id=runner_id,
        kind=order.kind,
        state=JobState.OPEN,
        force=order.force,
        image=order.image,
        source_id=order.source_id,
        resources=msgspec.structs.asdict(order.resources) if order.resources else None,
        stay_stopped=order.stay_stopped,
        attempts=0,
        reason="",
        created_at=at,
    )
    db.add(row)
    return row


async def claim(
    db: AsyncSession, runner_id: str, *, lease: str, now: datetime, lease_seconds: float, limit: int
) -> Sequence[JobRow]:
    """Take up to `limit` jobs nobody holds, oldest first, under `lease`. One query for both databases."""
    free = (
        select(JobRow.number)
        .where(
            JobRow.state == JobState.OPEN,
            or_(JobRow.runner_id == runner_id, JobRow.runner_id.is_(None)),
            or_(JobRow.lease.is_(None), JobRow.lease_until < now),
            JobRow.attempts < MAX_ATTEMPTS,
        )
        .order_by(JobRow.number)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    taken = await db.scalars(
        update(JobRow)
        .where(JobRow.number.in_(free))
        .values(
            runner_id=runner_id,
            lease=lease,
            lease_until=now + timedelta(seconds=lease_seconds),
            attempts=JobRow.attempts + 1,
        )
        .returning(JobRow)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    return sorted(taken.all(), key=lambda row: row.number)


async def extend(db: AsyncSession, job_id: str, lease: str, *, until: datetime) -> JobRow | None:
    """Hold a job longer; `None` when the lease is void."""
    return await db.scalar(
        update(JobRow)
        .where(JobRow.id == job_id, JobRow.lease == lease, JobRow.state == JobState.OPEN)
        .values(lease_until=until)
        .returning(JobRow)
        .execution_options(synchronize_session=False, populate_existing=True)
    )


async def end(db: AsyncSession, job_id: str, lease: str, *, at: datetime, ok: bool, reason: str) -> JobRow | None:
    """Close a job; `None` when the lease is void."""
    return await db.scalar(
        update(JobRow)
        .where(JobRow.id == job_id, JobRow.lease == lease, JobRow.state == JobState.OPEN)
        .values(state=JobState.DONE if ok else JobState.FAILED, finished_at=at, reason=reason)
        .returning(JobRow)
        .execution_options(synchronize_session=False, populate_existing=True)
    )


async def exhausted(db: AsyncSession, *, now: datetime) -> Sequence[JobRow]:
    """Jobs whose last allowed lease ran out."""
    rows = await db.scalars(
        select(JobRow).where(JobRow.state == JobState.OPEN, JobRow.attempts >= MAX_ATTEMPTS, JobRow.lease_until < now)
    )
    return rows.all()


async def with_open_job(db: AsyncSession, sandbox_ids: Sequence[str]) -> frozenset[str]:
    """Those of the sandboxes for which a job is open."""
    rows = await db.scalars(
        select(JobRow.sandbox_id).where(and_(JobRow.state == JobState.OPEN, JobRow.sandbox_id.in_(sandbox_ids)))
    )
    return frozenset(rows)
