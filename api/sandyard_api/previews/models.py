"""Tables of signed previews: fingerprints, never tokens."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, Integer
from sqlalchemy.orm import Mapped, mapped_column

from sandyard_api.database import Base


class SignedPreview(Base):
    """A token that opens one port of one sandbox until it expires."""

    __tablename__ = "signed_previews"
    __table_args__ = (Index("ix_signed_previews_expires_at", "expires_at"),)

    token_hash: Mapped[str] = mapped_column(primary_key=True)
    sandbox_id: Mapped[str] = mapped_column(ForeignKey("sandboxes.id", ondelete="CASCADE"), index=True)
    port: Mapped[int] = mapped_column(Integer)
    expires_at: Mapped[datetime]
