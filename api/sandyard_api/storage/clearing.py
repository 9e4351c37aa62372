"""Build contexts that nothing refers to any more: how long they are kept, and their removal."""

import asyncio
from datetime import datetime, timedelta

import structlog
from sqlalchemy import select

from sandyard.clock import Clock
from sandyard_api.database import Database
from sandyard_api.sandboxes.models import Sandbox
from sandyard_api.snapshots.models import Snapshot
from sandyard_api.storage.files import ObjectFiles

PERIOD = timedelta(minutes=5)
ROOM_AGE = timedelta(hours=1)
"""Where room is needed, what was not looked at for that long goes."""

log = structlog.get_logger()


class ContextClearing:
    """Removes contexts of the embedded storage. What an external one keeps is its owner's to decide."""

    def __init__(self, database: Database, clock: Clock, files: ObjectFiles | None, *, hours: float) -> None:
        self._database = database
        self._clock = clock
        self._files = files
        self._age = timedelta(hours=hours)
        self._looked_at: datetime | None = None

    async def look(self) -> None:
        """Remove what is due, every few minutes."""
        now = self._clock.now()
        if self._looked_at is None or abs(now - self._looked_at) >= PERIOD:
            self._looked_at = now
            await self._clear(now - self._age)

    async def make_room(self) -> None:
        """Remove what nothing refers to sooner, since the storage is full."""
        await self._clear(self._clock.now() - ROOM_AGE)

    async def _clear(self, before: datetime) -> None:
        files = self._files
        if files is None:
            return
        old = await asyncio.to_thread(files.unused_since, before.timestamp())
        if not old:
            return
        wanted = await self._wanted()
        for organization_id, context_hash in old:
            if (organization_id, context_hash) not in wanted:
                # Looked at again there: somebody may have asked for it meanwhile.
                if await asyncio.to_thread(files.remove, organization_id, context_hash, before.timestamp()):
                    log.info("context_removed", organization_id=organization_id, context_hash=context_hash)

    async def _wanted(self) -> set[tuple[str, str]]:
        """What a snapshot, also an inactive one, or a sandbox's record may be built from again."""
        found: set[tuple[str, str]] = set()
        async with self._database.reading() as db:
            for model in (Snapshot, Sandbox):
                built = select(model.organization_id, model.context_hashes).where(model.dockerfile.is_not(None))
                for organization_id, hashes in await db.execute(built):
                    found.update((organization_id or "", value) for value in hashes)
        return found
