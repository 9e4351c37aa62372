"""What a pull or build says: kept, and followed until it is over."""

from collections.abc import AsyncIterator

from sqlalchemy import select

from sandyard.clock import Clock
from sandyard_api.database import Database
from sandyard_api.sandboxes.announcing import Announcer
from sandyard_api.sandboxes.models import BuildLogChunk, Sandbox
from sandyard_api.sandboxes.states import WAITING_FOR_IMAGE, Desired
from sandyard_api.wakeups import Wakeups

CHUNK_LIMIT = 256
RECHECK_SECONDS = 5.0
"""A hint may get lost; then the next piece comes that late."""


class BuildLogs:
    """Appends and reads build logs."""

    def __init__(self, database: Database, clock: Clock, *, announcer: Announcer, changes: Wakeups) -> None:
        self._database = database
        self._clock = clock
        self._announcer = announcer
        self._changes = changes

    async def append(self, sandbox_id: str, text: str) -> None:
        """Add text; for a sandbox that is gone it is dropped. Counts as progress."""
        now = self._clock.now()
        async with self._database.transaction() as db:
            row = await db.get(Sandbox, sandbox_id)
            if row is None or not text:
                return
            row.progressed_at = now
            # A NUL cannot be stored in PostgreSQL's text.
            db.add(BuildLogChunk(sandbox_id=sandbox_id, at=now, text=text.replace("\x00", "\ufffd")))
        await self._announcer.progressed(sandbox_id)

    async def read(self, sandbox_id: str, *, follow: bool) -> AsyncIterator[bytes]:
        """The log so far; with `follow` also what comes, until the image is there or the attempt failed."""
        last = 0
        with self._changes.watch(sandbox_id) as watch:
            while True:
                async with self._database.reading() as db:
                    row = await db.get(Sandbox, sandbox_id)
                    chunks = (
                        await db.execute(
                            select(BuildLogChunk.number, BuildLogChunk.text)
                            .where(BuildLogChunk.sandbox_id == sandbox_id, BuildLogChunk.number > last)
                            .order_by(BuildLogChunk.number)
                            .limit(CHUNK_LIMIT)
                        )
                    ).all()
                for number, text in chunks:
                    last = number
                    yield text.encode()
                if len(chunks) == CHUNK_LIMIT:
                    continue
                if not follow or row is None or not _is_growing(row):
                    return
                await watch.wait(RECHECK_SECONDS)


def _is_growing(row: Sandbox) -> bool:
    return row.observed in WAITING_FOR_IMAGE and row.desired is not Desired.DESTROYED
