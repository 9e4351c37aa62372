"""SSH access: made, looked up, revoked."""

from datetime import datetime, timedelta

import msgspec
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from sandyard.clock import Clock
from sandyard.ids import IdSource
from sandyard_api.database import Database
from sandyard_api.errors import BadRequest, Gone, NotFound
from sandyard_api.sandboxes.models import Sandbox
from sandyard_api.sandboxes.service import find
from sandyard_api.sandboxes.states import Observed
from sandyard_api.sealing.service import fingerprint
from sandyard_api.ssh_access.models import SshAccess

DEFAULT_MINUTES = 60
MAX_MINUTES = 525_600
"""A year."""
TOKEN_LENGTH = 32


class Made(msgspec.Struct, frozen=True):
    """A new access; nobody can read its token again."""

    id: str
    sandbox_id: str
    token: str
    created_at: datetime
    expires_at: datetime


class SshAccesses:
    """Every method that takes an organization raises `NotFound` for a sandbox that is not theirs."""

    def __init__(self, database: Database, clock: Clock, ids: IdSource) -> None:
        self._database = database
        self._clock = clock
        self._ids = ids

    async def create(self, organization_id: str, key: str, *, minutes: float) -> Made:
        """A token in place of all the sandbox had before. Raises `BadRequest` for a life out of range."""
        if not 0 < minutes <= MAX_MINUTES:
            raise BadRequest(f"expiresInMinutes must be greater than 0 and not greater than {MAX_MINUTES}")
        now, token = self._clock.now(), self._ids.token(TOKEN_LENGTH)
        async with self._database.transaction() as db:
            sandbox = await find(db, organization_id, key, living=True)
            made = Made(self._ids.uuid(), sandbox.id, token, now, now + timedelta(minutes=minutes))
            await db.execute(delete(SshAccess).where(SshAccess.sandbox_id == sandbox.id))
            db.add(
                SshAccess(
                    id=made.id,
                    token_hash=fingerprint(token),
                    sandbox_id=sandbox.id,
                    created_at=now,
                    expires_at=made.expires_at,
                )
            )
        return made

    async def revoke(self, organization_id: str, key: str, token: str | None) -> Sandbox:
        """End one token, or without one all of the sandbox; what is over already, or never was, stays so."""
        async with self._database.transaction() as db:
            sandbox = await find(db, organization_id, key)
            gone = delete(SshAccess).where(SshAccess.sandbox_id == sandbox.id)
            if token is not None:
                gone = gone.where(SshAccess.token_hash == fingerprint(token))
            await db.execute(gone)
        return sandbox

    async def sandbox_of(self, organization_id: str, token: str) -> str | None:
        """The sandbox that a token is for, unless it holds no longer or is another organization's."""
        async with self._database.reading() as db:
            access, sandbox = await _look_up(db, token)
        if access is None or sandbox is None or sandbox.organization_id != organization_id:
            return None
        return sandbox.id if access.expires_at > self._clock.now() else None

    async def let_in(self, token: str) -> str:
        """The sandbox that a login with this token is for. Raises `NotFound`, or `Gone` when it has expired."""
        async with self._database.reading() as db:
            access, sandbox = await _look_up(db, token)
        if access is None or sandbox is None:
            raise NotFound("no such SSH access")
        if access.expires_at <= self._clock.now():
            raise Gone("this SSH access has expired")
        return sandbox.id


async def _look_up(db: AsyncSession, token: str) -> tuple[SshAccess | None, Sandbox | None]:
    access = await db.scalar(select(SshAccess).where(SshAccess.token_hash == fingerprint(token)))
    if access is None:
        return None, None
    sandbox = await db.get(Sandbox, access.sandbox_id)
    return access, sandbox if sandbox is not None and sandbox.observed is not Observed.DESTROYED else None
