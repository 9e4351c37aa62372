"""Images that nothing refers to any more: how long they are kept in our registry, and their removal."""

import asyncio
from datetime import datetime, timedelta

import structlog
from sqlalchemy import select

from sandyard.clock import Clock
from sandyard.virtual_clock import machine_of
from sandyard_api.database import Database
from sandyard_api.image_registry.names import Repository, references
from sandyard_api.image_registry.store import ImageStore
from sandyard_api.sandboxes.models import Sandbox
from sandyard_api.snapshots.models import Snapshot

PERIOD = timedelta(minutes=5)
ROOM_AGE = timedelta(hours=1)
"""Where room is needed, a tag that was not asked for that long goes, and an upload that nothing came for."""
GRACE = timedelta(hours=1)
"""How long a blob or manifest is kept that nothing refers to: a push brings the blobs before what refers to them."""
STALE_UPLOAD = timedelta(hours=24)

log = structlog.get_logger()


class ImageClearing:
    """Tags go by the users' clock, as snapshots and sandboxes do; what a push is made of by the machine's."""

    def __init__(self, database: Database, clock: Clock, store: ImageStore | None, *, hours: float) -> None:
        self._database = database
        self._clock = clock
        self._machine = machine_of(clock)
        self._store = store
        self._age = timedelta(hours=hours)
        self._looked_at: datetime | None = None

    async def look(self) -> None:
        """Remove what is due, every few minutes."""
        now = self._clock.now()
        if self._looked_at is None or abs(now - self._looked_at) >= PERIOD:
            self._looked_at = now
            await self._clear(now - self._age, STALE_UPLOAD)

    async def make_room(self) -> None:
        """Remove what nothing refers to sooner, since the registry is full."""
        await self._clear(self._clock.now() - ROOM_AGE, ROOM_AGE)

    async def _clear(self, before: datetime, stale_upload: timedelta) -> None:
        store = self._store
        if store is None or not await asyncio.to_thread(store.is_used):
            return
        now = self._machine.now()
        tags, digests = await self._named()
        for repository, tag in await asyncio.to_thread(store.unused_since, before.timestamp()):
            if (repository, tag) not in tags:
                # Looked at again there: somebody may have asked for it meanwhile.
                if await asyncio.to_thread(store.untag_unused, repository, tag, before.timestamp()):
                    log.info("image_untagged", repository=repository.path, tag=tag)
        await asyncio.to_thread(store.remove_uploads, (now - stale_upload).timestamp())
        if freed := await asyncio.to_thread(store.sweep, (now - GRACE).timestamp(), digests):
            log.info("images_removed", bytes=freed)

    async def _named(self) -> tuple[set[tuple[Repository, str]], set[tuple[Repository, str]]]:
        """Tags and digests of images that a snapshot, also an inactive one, or a sandbox's record may need again."""
        texts: list[str] = []
        async with self._database.reading() as db:
            for model in (Snapshot, Sandbox):
                for row in await db.execute(select(model.image, model.dockerfile)):
                    texts += [text for text in row if text]
        return await asyncio.to_thread(_named_in, texts)


def _named_in(texts: list[str]) -> tuple[set[tuple[Repository, str]], set[tuple[Repository, str]]]:
    named = [reference for text in texts for reference in references(text)]
    tags = {(one.repository, one.tag) for one in named if one.tag is not None}
    return tags, {(one.repository, one.digest) for one in named if one.digest is not None}
