"""Following a text that grows in the database, chunk by chunk, until what it tells of is over."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from sandyard_api.database import Database
from sandyard_api.wakeups import Wakeups

CHUNK_LIMIT = 256
RECHECK_SECONDS = 5.0
"""A hint may get lost; then the next piece comes that late."""

Chunks = Sequence[tuple[int, str]]
Look = Callable[[AsyncSession, int], Awaitable[tuple[Chunks, bool]]]
"""Given the number of the last chunk, at most `CHUNK_LIMIT` later ones, and whether the text may still grow."""


async def follow(database: Database, changes: Wakeups, key: str, look: Look, *, keep_on: bool) -> AsyncIterator[bytes]:
    """The text so far; with `keep_on` also what comes, until it cannot grow any more. `key` wakes us."""
    last = 0
    with changes.watch(key) as watch:
        while True:
            async with database.reading() as db:
                chunks, may_grow = await look(db, last)
            for number, text in chunks:
                last = number
                yield text.encode()
            if len(chunks) == CHUNK_LIMIT:
                continue
            if not keep_on or not may_grow:
                return
            await watch.wait(RECHECK_SECONDS)
