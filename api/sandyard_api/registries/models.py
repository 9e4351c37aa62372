"""Table of the registries that organizations have logins for."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from sandyard_api.database import Base


class Registry(Base):
    """A login at a container registry. The password is sealed; nobody is ever shown it."""

    __tablename__ = "registries"
    __table_args__ = (Index("ix_registries_organization_id", "organization_id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str] = mapped_column(ForeignKey("organizations.id"))
    name: Mapped[str]
    url: Mapped[str]
    """Host, port and path prefix, without a scheme."""
    username: Mapped[str]
    password_sealed: Mapped[str]
    project: Mapped[str]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
