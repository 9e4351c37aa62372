"""Table of the secrets of organizations."""

from datetime import datetime

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from sandyard_api.database import Base


class Secret(Base):
    """A value that sandboxes may use. It is sealed; nobody is ever shown it."""

    __tablename__ = "secrets"
    __table_args__ = (UniqueConstraint("organization_id", "name", name="uq_secrets_organization_id_name"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str] = mapped_column(ForeignKey("organizations.id"))
    name: Mapped[str]
    value_sealed: Mapped[str]
    description: Mapped[str | None]
    placeholder: Mapped[str] = mapped_column(unique=True)
    """What a sandbox holds in place of the value."""
    hosts: Mapped[list[str]]
    """Where the value may be sent, lower case, `*.` at the most once and in front; none: anywhere."""
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
