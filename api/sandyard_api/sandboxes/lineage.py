"""Forks: making one, and who comes from whom."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from sandyard_api.database import Database
from sandyard_api.errors import Conflict, NotFound
from sandyard_api.sandboxes import moves
from sandyard_api.sandboxes.models import Sandbox
from sandyard_api.sandboxes.moves import Move, refusal_error
from sandyard_api.sandboxes.service import Sandboxes, find
from sandyard_api.sandboxes.states import REQUESTS, Desired, Request, refusal

MAX_ANCESTORS = 1000


class Lineage:
    """Every method takes an organization and an id or name, and raises `NotFound` for what is not theirs."""

    def __init__(self, database: Database, sandboxes: Sandboxes) -> None:
        self._database = database
        self._sandboxes = sandboxes

    async def fork(self, organization_id: str, key: str, name: str | None) -> Sandbox:
        """A new sandbox with the files of a started one; answers at once, `forking`.

        Raises `BadRequest`, `Conflict` for a name that is taken, `Unprocessable`.
        """
        try:
            async with self._database.transaction() as db:
                parent = await find(db, organization_id, key, living=True)
                if (parent.observed, parent.desired, Request.FORK) not in REQUESTS:
                    why = refusal(parent.observed, parent.desired, Request.FORK)
                    raise refusal_error(parent, Request.FORK, why)
                child = await self._sandboxes.insert_fork(db, parent, name)
                moves.record(db, parent, cause=f"a fork was taken: {child.id}", at=child.created_at)
        except IntegrityError as error:
            raise Conflict(f"Sandbox with name {name} already exists") from error
        await self._sandboxes.announce([Move(child, None)])
        return child

    async def forks(self, organization_id: str, key: str, *, include_destroyed: bool) -> Sequence[Sandbox]:
        """Its forks, oldest first; those of forks are not among them."""
        async with self._database.reading() as db:
            row = await find(db, organization_id, key)
            children = select(Sandbox).where(Sandbox.parent_id == row.id)
            if not include_destroyed:
                children = children.where(Sandbox.desired != Desired.DESTROYED)
            return (await db.scalars(children.order_by(Sandbox.created_at, Sandbox.id))).all()

    async def parent(self, organization_id: str, key: str) -> Sandbox:
        """What it was forked from, as long as there is a record of it."""
        ancestors = await self.ancestors(organization_id, key, limit=1)
        if not ancestors:
            raise NotFound(f"Sandbox {key} has no parent")
        return ancestors[0]

    async def ancestors(self, organization_id: str, key: str, *, limit: int = MAX_ANCESTORS) -> list[Sandbox]:
        """Its parent, the parent of that and so on, as far as there are records."""
        found: list[Sandbox] = []
        async with self._database.reading() as db:
            row: Sandbox | None = await find(db, organization_id, key)
            while row is not None and row.parent_id is not None and len(found) < limit:
                row = await db.get(Sandbox, row.parent_id)
                if row is not None:
                    found.append(row)
        return found
