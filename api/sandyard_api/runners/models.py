"""Tables of runners, as their heartbeats tell."""

from datetime import datetime
from typing import Any

from sqlalchemy.orm import Mapped, mapped_column

from sandyard_api.database import Base


class Runner(Base):
    """One runner process on one machine."""

    __tablename__ = "runners"

    id: Mapped[str] = mapped_column(primary_key=True)
    url: Mapped[str]
    runtime: Mapped[str]
    capabilities: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]
