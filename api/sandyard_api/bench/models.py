"""Table of what the test bench keeps, so that every replica and the next start know it."""

from typing import Any

from sqlalchemy.orm import Mapped, mapped_column

from sandyard_api.database import Base


class BenchState(Base):
    """One named value."""

    __tablename__ = "bench_states"

    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[dict[str, Any]]
