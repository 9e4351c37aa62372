"""What a sandbox's pull or build says: kept, and followed until it is over."""

from collections.abc import AsyncIterator

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from sandyard.clock import Clock
from sandyard_api.database import Database
from sandyard_api.following import CHUNK_LIMIT, Chunks, follow
from sandyard_api.sandboxes.announcing import Announcer
from sandyard_api.sandboxes.models import BuildLogChunk, Sandbox
from sandyard_api.sandboxes.states import WAITING_FOR_IMAGE, Desired
from sandyard_api.wakeups import Wakeups


class BuildLogs:
    """Appends and reads build logs."""

    def __init__(self, database: Database, clock: Clock, *, announcer: Announcer, changes: Wakeups) -> None:
        self._database = database
        self._clock = clock
        self._announcer = announcer
        self._changes = changes

    async def append(self, sandbox_id: str, text: str) -> bool:
        """Add text; for a sandbox that is gone it is dropped. Counts as progress. Whether there is such a sandbox."""
        now = self._clock.now()
        async with self._database.transaction() as db:
            row = await db.get(Sandbox, sandbox_id)
            if row is None:
                return False
            if text:
                row.progressed_at = now
                # A NUL cannot be stored in PostgreSQL's text.
                db.add(BuildLogChunk(sandbox_id=sandbox_id, at=now, text=text.replace("\x00", "\ufffd")))
        await self._announcer.progressed(sandbox_id)
        return True

    def read(self, sandbox_id: str, *, keep_on: bool) -> AsyncIterator[bytes]:
        """The log so far; with `keep_on` also what comes, until the image is there or the attempt failed."""

        async def look(db: AsyncSession, last: int) -> tuple[Chunks, bool]:
            row = await db.get(Sandbox, sandbox_id)
            found = await db.execute(
                select(BuildLogChunk.number, BuildLogChunk.text)
                .where(BuildLogChunk.sandbox_id == sandbox_id, BuildLogChunk.number > last)
                .order_by(BuildLogChunk.number)
                .limit(CHUNK_LIMIT)
            )
            return [(number, text) for number, text in found], row is not None and _is_growing(row)

        return follow(self._database, self._changes, sandbox_id, look, keep_on=keep_on)


def _is_growing(row: Sandbox) -> bool:
    return row.observed in WAITING_FOR_IMAGE and row.desired is not Desired.DESTROYED
