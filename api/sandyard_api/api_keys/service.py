"""API keys: making, checking and revoking them; the owner's own is made at the first start."""

import hmac
from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from sandyard.bus import Bus, BusError
from sandyard.clock import Clock
from sandyard.ids import IdSource
from sandyard_api.api_keys.models import ApiKey
from sandyard_api.database import Database
from sandyard_api.errors import BadRequest, Conflict, Forbidden, NotFound, Unauthorized
from sandyard_api.jobs.wire import CHANNEL_KEYS, KeyGrant
from sandyard_api.organizations.models import Organization
from sandyard_api.organizations.service import DEFAULT_ORGANIZATION
from sandyard_api.sealing.service import fingerprint

OWNER_KEY_NAME = "owner"
PERMISSIONS = (
    "write:registries",
    "delete:registries",
    "write:snapshots",
    "delete:snapshots",
    "write:sandboxes",
    "delete:sandboxes",
    "read:volumes",
    "write:volumes",
    "delete:volumes",
    "write:regions",
    "delete:regions",
    "read:runners",
    "write:runners",
    "delete:runners",
    "read:audit_logs",
    "manage:api_keys",
    "manage:secrets",
    "read:limits",
    "manage:sso",
    "read:billing",
    "manage:billing",
)
KEY_PREFIX = "dtn_"
"""How keys of the protocol begin."""
KEY_LENGTH = 64
CACHE_SECONDS = 5.0
CACHE_SIZE = 1024
USED_EVERY = timedelta(seconds=30)
MAX_KEY_LENGTH = 512

log = structlog.get_logger()


class ApiKeys:
    """Checks keys, remembering good ones for a few seconds; makes and revokes those of the grant's user."""

    def __init__(self, database: Database, clock: Clock, ids: IdSource, bus: Bus) -> None:
        self._database = database
        self._clock = clock
        self._ids = ids
        self._bus = bus
        self._cache: OrderedDict[str, tuple[KeyGrant, float]] = OrderedDict()

    async def check(self, key: str) -> KeyGrant:
        """What a key stands for. Raises `Unauthorized`."""
        if not key or len(key) > MAX_KEY_LENGTH or is_jwt_shaped(key):
            raise Unauthorized
        digest = fingerprint(key)
        known = self._cache.get(digest)
        if known is not None and known[1] > self._clock.monotonic():
            return known[0]
        grant = await self._look_up(digest)
        self._cache[digest] = (grant, self._clock.monotonic() + CACHE_SECONDS)
        if len(self._cache) > CACHE_SIZE:
            self._cache.popitem(last=False)
        return grant

    async def create(
        self, grant: KeyGrant, name: str, *, permissions: list[str], expires_at: datetime | None
    ) -> tuple[ApiKey, str]:
        """A new key and its record. Raises `Conflict`, `BadRequest`; `Forbidden` for more than the grant may itself."""
        if beyond := [each for each in permissions if each not in grant.permissions]:
            raise Forbidden(f"Insufficient permissions for assigning: {', '.join(beyond)}")
        now = self._clock.now()
        if expires_at is not None and expires_at <= now:
            raise BadRequest("expiresAt must be in the future")
        key = KEY_PREFIX + self._ids.token(KEY_LENGTH)
        row = ApiKey(
            id=self._ids.uuid(),
            organization_id=grant.organization_id,
            user_id=grant.user_id,
            name=name,
            permissions=permissions,
            created_at=now,
            expires_at=expires_at,
        )
        _remember(row, key)
        try:
            async with self._database.transaction() as db:
                db.add(row)
        except IntegrityError as error:
            raise Conflict("API key with this name already exists") from error
        return row, key

    async def all(self, grant: KeyGrant) -> Sequence[ApiKey]:
        """Every key of the grant's user, the newest first."""
        async with self._database.reading() as db:
            of_user = select(ApiKey).where(ApiKey.user_id == grant.user_id)
            return (await db.scalars(of_user.order_by(ApiKey.created_at.desc(), ApiKey.id))).all()

    async def named(self, grant: KeyGrant, name: str) -> ApiKey:
        """Raises `NotFound`."""
        async with self._database.reading() as db:
            return await _named(db, grant, name)

    async def revoke(self, grant: KeyGrant, name: str) -> None:
        """End a key at once, here and at every proxy that the bus reaches. Raises `NotFound`, `BadRequest`."""
        async with self._database.transaction() as db:
            row = await _named(db, grant, name)
            if row.name == OWNER_KEY_NAME:
                raise BadRequest("the owner's key belongs to the installation: change SANDYARD_API_KEY instead")
            await db.delete(row)
        self._cache.pop(row.hash, None)
        try:
            await self._bus.publish(CHANNEL_KEYS, b"")
        except BusError as error:
            log.warning("hint_lost", channel=CHANNEL_KEYS, error=str(error))

    def forget(self) -> None:
        """Look every key up again: one was removed, or the time by which they expire was moved."""
        self._cache.clear()

    async def row(self, key_id: str) -> ApiKey:
        """The key's record."""
        async with self._database.reading() as db:
            return await db.get_one(ApiKey, key_id)

    async def _look_up(self, digest: str) -> KeyGrant:
        async with self._database.reading() as db:
            row = await db.scalar(select(ApiKey).where(ApiKey.hash == digest))
            organization = None if row is None else await db.get(Organization, row.organization_id)
        if row is None or not hmac.compare_digest(row.hash, digest):
            raise Unauthorized
        now = self._clock.now()
        if row.expires_at is not None and row.expires_at <= now:
            raise Unauthorized
        if row.last_used_at is None or now - row.last_used_at >= USED_EVERY:
            await self._note_use(row.id, now)
        is_owner = organization is not None and organization.name == DEFAULT_ORGANIZATION
        return KeyGrant(row.id, row.organization_id, row.user_id, tuple(row.permissions), is_owner)

    async def _note_use(self, key_id: str, now: datetime) -> None:
        async with self._database.transaction() as db:
            row = await db.get(ApiKey, key_id)
            if row is not None:
                row.last_used_at = now


def is_jwt_shaped(key: str) -> bool:
    """Tokens of identity providers look like this; we have none, so they are never valid."""
    return key.startswith("eyJ") and key.count(".") == 2


async def keep_owner_key(
    database: Database, clock: Clock, ids: IdSource, *, organization_id: str, user_id: str, key: str
) -> None:
    """Make the owner's key what it was configured to be. The one before stops working."""
    async with database.transaction() as db:
        row = await db.scalar(select(ApiKey).where(ApiKey.user_id == user_id, ApiKey.name == OWNER_KEY_NAME))
        if row is None:
            row = ApiKey(
                id=ids.uuid(),
                organization_id=organization_id,
                user_id=user_id,
                name=OWNER_KEY_NAME,
                created_at=clock.now(),
            )
            db.add(row)
        row.permissions = list(PERMISSIONS)
        _remember(row, key)


def _remember(row: ApiKey, key: str) -> None:
    """Keep what a key is recognised and shown by."""
    row.hash, row.prefix, row.suffix = fingerprint(key), key[:3], key[-3:]


async def _named(db: AsyncSession, grant: KeyGrant, name: str) -> ApiKey:
    row = await db.scalar(select(ApiKey).where(ApiKey.user_id == grant.user_id, ApiKey.name == name))
    if row is None:
        raise NotFound("API key not found")
    return row
