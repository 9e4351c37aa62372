"""Table of volumes."""

from datetime import datetime

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from sandyard_api.database import Base, partial_index


class Volume(Base):
    """A volume. Its content is a folder of the runner's machine, made when a sandbox first mounts it."""

    __tablename__ = "volumes"
    __table_args__ = (
        partial_index(
            "uq_volumes_organization_id_name_among_the_living",
            "organization_id",
            "name",
            unique=True,
            where="deleted_at is null",
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str] = mapped_column(ForeignKey("organizations.id"))
    name: Mapped[str]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]
    """When a sandbox was last made with it."""
    deleted_at: Mapped[datetime | None]
    """The record stays readable in lists for a while; the content is gone."""
