"""What a snapshot's pull or build says: kept, and followed until it is over."""

from collections.abc import AsyncIterator

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from sandyard.clock import Clock
from sandyard_api.database import Database
from sandyard_api.following import CHUNK_LIMIT, Chunks, follow
from sandyard_api.snapshots.models import Snapshot, SnapshotLogChunk
from sandyard_api.snapshots.states import PREPARING
from sandyard_api.wakeups import Wakeups


class SnapshotLogs:
    """Appends and reads the logs."""

    def __init__(self, database: Database, clock: Clock, changes: Wakeups) -> None:
        self._database = database
        self._clock = clock
        self._changes = changes

    async def append(self, snapshot_id: str, text: str) -> None:
        """Add text; for a snapshot that is gone it is dropped. Counts as progress."""
        now = self._clock.now()
        async with self._database.transaction() as db:
            row = await db.get(Snapshot, snapshot_id)
            if row is None or not text:
                return
            row.progressed_at = now
            db.add(SnapshotLogChunk(snapshot_id=snapshot_id, at=now, text=text))
        await self._changes.announce(snapshot_id)

    def read(self, snapshot_id: str, *, keep_on: bool) -> AsyncIterator[bytes]:
        """The log so far; with `keep_on` also what comes, until the image is there or the attempt failed."""

        async def look(db: AsyncSession, last: int) -> tuple[Chunks, bool]:
            row = await db.get(Snapshot, snapshot_id)
            found = await db.execute(
                select(SnapshotLogChunk.number, SnapshotLogChunk.text)
                .where(SnapshotLogChunk.snapshot_id == snapshot_id, SnapshotLogChunk.number > last)
                .order_by(SnapshotLogChunk.number)
                .limit(CHUNK_LIMIT)
            )
            return [(number, text) for number, text in found], row is not None and row.state in PREPARING

        return follow(self._database, self._changes, snapshot_id, look, keep_on=keep_on)
