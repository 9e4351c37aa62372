"""What `/_sandyard/` shows of sessions and commands."""

import base64
from datetime import datetime

import msgspec

from sandyard_api.sessions.models import Session, SessionCommand


class CommandView(msgspec.Struct, rename="camel"):
    """A command as the database knows it."""

    sandbox_id: str
    session_id: str
    id: str
    command: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    exit_code: int | None
    """`None` while it runs, and where its end was never told."""
    log_size: int
    """Payload bytes of both streams."""
    last_lines: str
    """The end of the log as text; bytes that are no UTF-8 are replaced."""


class SessionView(msgspec.Struct, rename="camel"):
    """A session as the database knows it."""

    sandbox_id: str
    id: str
    created_at: datetime
    ended_at: datetime | None


class SessionDetail(SessionView, rename="camel"):
    """A session with its commands, oldest first."""

    commands: list[CommandView]


class SessionList(msgspec.Struct):
    """Every session of a sandbox, oldest first."""

    sessions: list[SessionView]


def command_view(row: SessionCommand) -> CommandView:
    """The record as it is shown."""
    return CommandView(
        sandbox_id=row.sandbox_id,
        session_id=row.session_id,
        id=row.command_id,
        command=row.command,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        exit_code=row.exit_code,
        log_size=row.log_size,
        last_lines=base64.b64decode(row.last_lines).decode(errors="replace"),
    )


def session_view(row: Session) -> SessionView:
    """The record as it is shown."""
    return SessionView(row.sandbox_id, row.session_id, row.created_at, row.ended_at)
