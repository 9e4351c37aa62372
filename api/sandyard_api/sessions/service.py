"""Sessions and commands as records: taken in from runners, read long after the sandbox stopped."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from sandyard_api.database import Database
from sandyard_api.errors import NotFound
from sandyard_api.jobs.wire import CommandRecord, SessionRecord
from sandyard_api.sandboxes.models import Sandbox
from sandyard_api.sessions.models import Session, SessionCommand


class SessionRecords:
    """Inserts or completes records; what is complete never becomes incomplete again."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, sessions: Sequence[SessionRecord], commands: Sequence[CommandRecord]) -> None:
        """Take in what the daemons told. May be repeated, in any order."""
        try:
            await self._record(sessions, commands)
        except IntegrityError:
            # Another replica inserted the same records between our look and our insert: now they are there.
            await self._record(sessions, commands)

    async def sessions(self, sandbox_id: str) -> Sequence[Session]:
        """Every session of a sandbox, oldest first."""
        async with self._database.reading() as db:
            rows = await db.scalars(
                select(Session).where(Session.sandbox_id == sandbox_id).order_by(Session.created_at, Session.session_id)
            )
            return rows.all()

    async def session(self, sandbox_id: str, session_id: str) -> tuple[Session, Sequence[SessionCommand]]:
        """A session and its commands in their order. Raises `NotFound`."""
        async with self._database.reading() as db:
            session = await db.get(Session, (sandbox_id, session_id))
            if session is None:
                raise NotFound(f"Session {session_id} not found")
            commands = await db.scalars(
                select(SessionCommand)
                .where(SessionCommand.sandbox_id == sandbox_id, SessionCommand.session_id == session_id)
                .order_by(SessionCommand.created_at, SessionCommand.command_id)
            )
            return session, commands.all()

    async def command(self, sandbox_id: str, session_id: str, command_id: str) -> SessionCommand:
        """One command. Raises `NotFound`."""
        async with self._database.reading() as db:
            row = await db.get(SessionCommand, (sandbox_id, session_id, command_id))
            if row is None:
                raise NotFound(f"Command {command_id} not found")
            return row

    async def _record(self, sessions: Sequence[SessionRecord], commands: Sequence[CommandRecord]) -> None:
        async with self._database.transaction() as db:
            named = {told.sandbox_id for told in sessions} | {told.sandbox_id for told in commands}
            known = set(await db.scalars(select(Sandbox.id).where(Sandbox.id.in_(named))))
            for session in sessions:
                if session.sandbox_id in known:
                    await _keep_session(db, session)
            await db.flush()
            for command in commands:
                if command.sandbox_id in known:
                    await _keep_command(db, command)


async def _keep_session(db: AsyncSession, told: SessionRecord) -> None:
    row = await db.get(Session, (told.sandbox_id, told.session_id))
    if row is None:
        row = Session(sandbox_id=told.sandbox_id, session_id=told.session_id)
        db.add(row)
    elif told.created_at < row.created_at:
        return
    elif told.created_at == row.created_at and told.ended_at is None:
        return
    row.created_at, row.ended_at = told.created_at, told.ended_at


async def _keep_command(db: AsyncSession, told: CommandRecord) -> None:
    if await db.get(Session, (told.sandbox_id, told.session_id)) is None:
        db.add(Session(sandbox_id=told.sandbox_id, session_id=told.session_id, created_at=told.created_at))
        await db.flush()
    row = await db.get(SessionCommand, (told.sandbox_id, told.session_id, told.command_id))
    if row is None:
        row = SessionCommand(sandbox_id=told.sandbox_id, session_id=told.session_id, command_id=told.command_id)
        db.add(row)
    elif row.finished_at is not None and told.finished_at is None:
        return
    row.command, row.created_at = told.command.replace("\x00", "\ufffd"), told.created_at
    row.started_at, row.finished_at, row.exit_code = told.started_at, told.finished_at, told.exit_code
    row.log_size, row.last_lines = told.log_size, told.last_lines
