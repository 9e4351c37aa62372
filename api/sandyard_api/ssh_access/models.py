"""Tables of SSH access: fingerprints, never tokens."""

from datetime import datetime

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from sandyard_api.database import Base


class SshAccess(Base):
    """A token that is the user name of SSH logins to one sandbox until it expires.

    What has expired is kept until the next is made, so that the gateway can say why it lets nobody in.
    """

    __tablename__ = "ssh_accesses"

    id: Mapped[str] = mapped_column(primary_key=True)
    token_hash: Mapped[str] = mapped_column(unique=True)
    sandbox_id: Mapped[str] = mapped_column(ForeignKey("sandboxes.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
