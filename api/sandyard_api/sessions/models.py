"""Tables of sessions and their commands, as the daemons told them. They outlive the sandbox's processes."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, ForeignKeyConstraint
from sqlalchemy.orm import Mapped, mapped_column

from sandyard_api.database import Base


class Session(Base):
    """One session of one sandbox."""

    __tablename__ = "sessions"

    sandbox_id: Mapped[str] = mapped_column(ForeignKey("sandboxes.id", ondelete="CASCADE"), primary_key=True)
    session_id: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class SessionCommand(Base):
    """One command of one session."""

    __tablename__ = "session_commands"
    __table_args__ = (
        ForeignKeyConstraint(
            ["sandbox_id", "session_id"], ["sessions.sandbox_id", "sessions.session_id"], ondelete="CASCADE"
        ),
    )

    sandbox_id: Mapped[str] = mapped_column(primary_key=True)
    session_id: Mapped[str] = mapped_column(primary_key=True)
    command_id: Mapped[str] = mapped_column(primary_key=True)
    command: Mapped[str]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    exit_code: Mapped[int | None] = mapped_column(BigInteger)
    log_size: Mapped[int] = mapped_column(BigInteger)
    last_lines: Mapped[str]
    """Base64 of the raw end of the log."""
