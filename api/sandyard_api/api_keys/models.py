"""Tables of API keys: hashes, never keys."""

from datetime import datetime

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from sandyard_api.database import Base


class ApiKey(Base):
    """A key by its SHA-256; prefix and suffix are what a listing shows of it."""

    __tablename__ = "api_keys"
    __table_args__ = (UniqueConstraint("user_id", "name"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str] = mapped_column(ForeignKey("organizations.id"))
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    name: Mapped[str]
    hash: Mapped[str] = mapped_column(unique=True)
    prefix: Mapped[str]
    suffix: Mapped[str]
    permissions: Mapped[list[str]]
    created_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
