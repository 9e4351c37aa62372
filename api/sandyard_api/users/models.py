"""Tables of users. There is one, the owner of the installation."""

from datetime import datetime

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from sandyard_api.database import Base


class User(Base):
    """Somebody who may hold keys."""

    __tablename__ = "users"

    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str] = mapped_column(ForeignKey("organizations.id"))
    name: Mapped[str]
    email: Mapped[str]
    created_at: Mapped[datetime]
