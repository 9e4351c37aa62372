"""Tables of jobs: the queue between the control plane and its runners."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, Integer
from sqlalchemy.orm import Mapped, mapped_column

from sandyard_api.database import Base, partial_index
from sandyard_api.jobs.wire import JobKind


class JobState(StrEnum):
    """How far a job has come."""

    OPEN = "open"  # to be claimed, or claimed under a lease that may have run out
    DONE = "done"
    FAILED = "failed"
    VOID = "void"  # not wanted any more; whoever holds its lease is told so


class JobRow(Base):
    """One piece of work. At the most one is open for a sandbox."""

    __tablename__ = "jobs"
    __table_args__ = (
        partial_index("uq_jobs_one_open_for_each_sandbox", "sandbox_id", unique=True, where="state = 'open'"),
        Index("ix_jobs_state_runner_id", "state", "runner_id"),
        partial_index("ix_jobs_finished_at", "finished_at", where="finished_at is not null"),
    )

    number: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True
    )
    """Order of arrival."""
    id: Mapped[str] = mapped_column(unique=True)
    sandbox_id: Mapped[str] = mapped_column(ForeignKey("sandboxes.id", ondelete="CASCADE"))
    runner_id: Mapped[str | None]
    """`None` until somebody claims it: any runner may."""
    kind: Mapped[JobKind]
    state: Mapped[JobState]
    force: Mapped[bool]
    image: Mapped[str | None]
    source_id: Mapped[str | None]
    resources: Mapped[dict[str, Any] | None]
    stay_stopped: Mapped[bool]
    lease: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    attempts: Mapped[int]
    reason: Mapped[str]
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
