"""Tables of organizations. There is one, made at the first start."""

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from sandyard_api.database import Base


class Organization(Base):
    """Owner of sandboxes and keys."""

    __tablename__ = "organizations"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime]
