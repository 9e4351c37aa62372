"""The table by which a start knows its encryption key again."""

from sqlalchemy.orm import Mapped, mapped_column

from sandyard_api.database import Base


class SealCheck(Base):
    """A text sealed at the first start."""

    __tablename__ = "seal_checks"

    id: Mapped[str] = mapped_column(primary_key=True)
    sealed: Mapped[str]
