"""Signed previews: made, looked up, ended."""

from datetime import timedelta

from sqlalchemy import delete, update
from sqlalchemy.ext.asyncio import AsyncSession

from sandyard.clock import Clock
from sandyard.ids import IdSource
from sandyard_api.database import Database
from sandyard_api.errors import BadRequest, Forbidden
from sandyard_api.previews.models import SignedPreview
from sandyard_api.sandboxes.announcing import Announcer
from sandyard_api.sandboxes.models import Sandbox
from sandyard_api.sandboxes.service import find
from sandyard_api.sealing.service import Seal, fingerprint

DEFAULT_SECONDS = 60
MAX_SECONDS = 86_400
TOKEN_LENGTH = 16
SIGNING_KEY_PREFIX = "sk_"


class Previews:
    """Every method that takes an organization raises `NotFound` for a sandbox that is not theirs."""

    def __init__(self, database: Database, clock: Clock, ids: IdSource, *, seal: Seal, announcer: Announcer) -> None:
        self._database = database
        self._clock = clock
        self._ids = ids
        self._seal = seal
        self._announcer = announcer

    async def token(self, organization_id: str, key: str) -> tuple[str, str]:
        """Id and preview token of a sandbox, whatever it does."""
        row = await self._living(organization_id, key)
        return row.id, self._seal.open(row.preview_token_sealed)

    async def is_public(self, organization_id: str, key: str) -> bool:
        """Whether its previews ask for no token."""
        return (await self._living(organization_id, key)).public

    async def is_token(self, organization_id: str, key: str, token: str) -> bool:
        """Whether that is its preview token now."""
        return (await self._living(organization_id, key)).preview_token_hash == fingerprint(token)

    async def signing_key(self, organization_id: str, key: str, *, rotate: bool = False) -> str:
        """What signs file URLs of this sandbox; made when first asked for, and anew to `rotate`.

        With its prefix no JSON parser takes it for a number: clients guess the type of the answer.
        *Source:* sdk-wire.md 3.7.
        """
        async with self._database.transaction() as db:
            row = await find(db, organization_id, key, living=True)
            is_new = row.signing_key_sealed is None or rotate
            if is_new:
                unchanged = Sandbox.signing_key_sealed.is_not_distinct_from(row.signing_key_sealed)
                sealed = self._seal.close(SIGNING_KEY_PREFIX + self._ids.token(48))
                await db.execute(
                    update(Sandbox).where(Sandbox.id == row.id, unchanged).values(signing_key_sealed=sealed)
                )
                await db.refresh(row)  # another request may have been quicker; then its key counts
        if is_new:
            await self._announcer.route_changed(row.id)
        return self._seal.open(row.signing_key_sealed or "")

    async def sign(self, organization_id: str, key: str, port: int, *, seconds: float) -> tuple[str, str]:
        """Id of the sandbox, and a token for that port. Raises `BadRequest` for a life out of range."""
        if not 1 <= seconds <= MAX_SECONDS:
            raise BadRequest("expiresInSeconds must be between 1 second and 24 hours")
        token, now = self._ids.token(TOKEN_LENGTH), self._clock.now()
        async with self._database.transaction() as db:
            row = await find(db, organization_id, key, living=True)
            await db.execute(delete(SignedPreview).where(SignedPreview.expires_at <= now))
            db.add(
                SignedPreview(
                    token_hash=fingerprint(token),
                    sandbox_id=row.id,
                    port=port,
                    expires_at=now + timedelta(seconds=seconds),
                )
            )
        return row.id, token

    async def expire(self, organization_id: str, key: str, port: int, token: str) -> None:
        """End a token; one that is over already, or never was, stays so."""
        async with self._database.transaction() as db:
            row = await find(db, organization_id, key, living=True)
            await db.execute(
                delete(SignedPreview).where(
                    SignedPreview.token_hash == fingerprint(token),
                    SignedPreview.sandbox_id == row.id,
                    SignedPreview.port == port,
                )
            )
        await self._announcer.route_changed(row.id)

    async def sandbox_of(self, organization_id: str, token: str, port: int) -> str:
        """The sandbox that a token opens at that port. Raises `Forbidden`."""
        async with self._database.reading() as db:
            signed = await valid(db, token, self._clock)
            row = await db.get(Sandbox, signed.sandbox_id) if signed is not None and signed.port == port else None
        if row is None or row.organization_id != organization_id:
            raise Forbidden("Invalid or expired token")
        return row.id

    async def _living(self, organization_id: str, key: str) -> Sandbox:
        async with self._database.reading() as db:
            return await find(db, organization_id, key, living=True)


async def valid(db: AsyncSession, token: str, clock: Clock) -> SignedPreview | None:
    """The record of a token that has not expired."""
    row = await db.get(SignedPreview, fingerprint(token))
    return row if row is not None and row.expires_at > clock.now() else None
