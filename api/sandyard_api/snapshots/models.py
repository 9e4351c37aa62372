"""Tables of snapshots and of what their pulls and builds said."""

from datetime import datetime

from sqlalchemy import BigInteger, Float, ForeignKey, Index, Integer
from sqlalchemy.orm import Mapped, mapped_column

from sandyard_api.database import Base, partial_index
from sandyard_api.snapshots.states import SnapshotState


class Snapshot(Base):
    """What sandboxes are made from. While a runner prepares its image the row itself is the job, held under a lease."""

    __tablename__ = "snapshots"
    __table_args__ = (
        Index("uq_snapshots_organization_id_name", "organization_id", "name", unique=True),
        partial_index("uq_snapshots_name_among_the_general", "name", unique=True, where="organization_id is null"),
        Index("ix_snapshots_state_created_at", "state", "created_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str | None] = mapped_column(ForeignKey("organizations.id"))
    """`None`: a general one, which every organization sees."""
    name: Mapped[str]
    image_name: Mapped[str | None]
    """The image it was asked to be made from."""
    dockerfile: Mapped[str | None]
    context_hashes: Mapped[list[str]]
    image: Mapped[str | None]
    """What the runtime is asked for; `None` is its own default."""
    entrypoint: Mapped[list[str] | None]
    """As asked for."""
    image_entrypoint: Mapped[list[str] | None]
    """As found in the image."""
    source_sandbox_id: Mapped[str | None]

    cpu: Mapped[int]
    memory_gib: Mapped[int]
    disk_gib: Mapped[int]
    size_gib: Mapped[float | None] = mapped_column(Float())

    state: Mapped[SnapshotState]
    error_reason: Mapped[str | None]
    region: Mapped[str]
    runner_id: Mapped[str | None]
    lease: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    attempts: Mapped[int]
    progressed_at: Mapped[datetime]
    """Last change of state, or last word of a pull or build."""

    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]
    deactivated_at: Mapped[datetime | None]

    @property
    def is_general(self) -> bool:
        """Belongs to no organization and is seen by all."""
        return self.organization_id is None


class SnapshotLogChunk(Base):
    """A piece of what a pull or build said."""

    __tablename__ = "snapshot_log_chunks"
    __table_args__ = (Index("ix_snapshot_log_chunks_snapshot_id_number", "snapshot_id", "number"),)

    number: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True
    )
    snapshot_id: Mapped[str] = mapped_column(ForeignKey("snapshots.id", ondelete="CASCADE"))
    at: Mapped[datetime]
    text: Mapped[str]
