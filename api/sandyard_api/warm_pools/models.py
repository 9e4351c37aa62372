"""The table of warm pools. What waits in them are rows of `sandboxes` with a `warm_pool_id`."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from sandyard_api.database import Base

NOBODY = "00000000-0000-0000-0000-000000000000"
"""The organization of the pool that the setting makes: no user's, and its sandboxes are in no list."""


class WarmPool(Base):
    """How many started sandboxes of a snapshot are to wait for a create."""

    __tablename__ = "warm_pools"
    __table_args__ = (
        Index(
            "uq_warm_pools_organization_id_snapshot_id_region", "organization_id", "snapshot_id", "region", unique=True
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str] = mapped_column(ForeignKey("organizations.id"))
    """Whose creates it serves; those of everybody where it is `NOBODY`."""
    snapshot: Mapped[str]
    snapshot_id: Mapped[str]
    """The snapshot's row, which may be gone by now."""
    region: Mapped[str]
    size: Mapped[int]
    cpu: Mapped[int]
    memory_gib: Mapped[int]
    disk_gib: Mapped[int]
    error_reason: Mapped[str | None]
    """Why it is not full; `None` while nothing failed."""
    retry_at: Mapped[datetime | None]
    """By the machine's time: nothing is made before, because something failed."""
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]

    @property
    def is_shared(self) -> bool:
        """Made by the setting, for everybody."""
        return self.organization_id == NOBODY
