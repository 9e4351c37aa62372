"""API keys: checking them, and making the owner's at the first start."""

import hmac
from collections import OrderedDict
from datetime import datetime, timedelta

from sqlalchemy import select

from sandyard.clock import Clock
from sandyard.ids import IdSource
from sandyard_api.api_keys.models import ApiKey
from sandyard_api.database import Database
from sandyard_api.errors import Unauthorized
from sandyard_api.jobs.wire import KeyGrant
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
)
CACHE_SECONDS = 5.0
CACHE_SIZE = 1024
USED_EVERY = timedelta(seconds=30)
MAX_KEY_LENGTH = 512


class ApiKeys:
    """Checks keys, remembering good ones for a few seconds."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
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
        row.hash, row.permissions = fingerprint(key), list(PERMISSIONS)
        row.prefix, row.suffix = key[:3], key[-3:]
