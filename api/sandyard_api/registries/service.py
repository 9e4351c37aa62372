"""Logins at container registries: kept sealed, and handed to runners for the images that come from there."""

from collections.abc import Sequence

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from sandyard.clock import Clock
from sandyard.ids import IdSource
from sandyard_api.database import Database
from sandyard_api.errors import BadRequest, NotFound
from sandyard_api.jobs.wire import RegistryLogin
from sandyard_api.registries.models import Registry
from sandyard_api.registries.requests import RegistryFields
from sandyard_api.sealing.service import Seal

MAX_REGISTRIES = 100


class Registries:
    """The verbs. Every method takes an organization and raises `NotFound` for what is not theirs."""

    def __init__(self, database: Database, clock: Clock, ids: IdSource, seal: Seal) -> None:
        self._database = database
        self._clock = clock
        self._ids = ids
        self._seal = seal

    async def create(self, organization_id: str, wanted: RegistryFields) -> Registry:
        """Keep a login. Raises `BadRequest` when there are too many."""
        now = self._clock.now()
        row = Registry(
            id=self._ids.uuid(),
            organization_id=organization_id,
            name=wanted.name or "",
            url=wanted.url or "",
            username=wanted.username or "",
            password_sealed=self._seal.close(wanted.password or ""),
            project=wanted.project or "",
            created_at=now,
            updated_at=now,
        )
        async with self._database.transaction() as db:
            theirs = select(func.count()).select_from(Registry).where(Registry.organization_id == organization_id)
            if (await db.scalar(theirs) or 0) >= MAX_REGISTRIES:
                raise BadRequest("You have reached the maximum number of registries")
            db.add(row)
        return row

    async def list(self, organization_id: str) -> Sequence[Registry]:
        """All of them, oldest first."""
        async with self._database.reading() as db:
            return await _all(db, organization_id)

    async def get(self, organization_id: str, registry_id: str) -> Registry:
        """One."""
        async with self._database.reading() as db:
            return await _find(db, organization_id, registry_id)

    async def change(self, organization_id: str, registry_id: str, wanted: RegistryFields) -> Registry:
        """Write what was given; the password stays where none was."""
        async with self._database.transaction() as db:
            row = await _find(db, organization_id, registry_id)
            row.name, row.url = wanted.name or row.name, wanted.url or row.url
            row.username = wanted.username or row.username
            row.project = row.project if wanted.project is None else wanted.project
            if wanted.password:
                row.password_sealed = self._seal.close(wanted.password)
            row.updated_at = self._clock.now()
        return row

    async def delete(self, organization_id: str, registry_id: str) -> None:
        """Forget it."""
        async with self._database.transaction() as db:
            row = await _find(db, organization_id, registry_id)
            await db.execute(delete(Registry).where(Registry.id == row.id))

    async def logins(self, db: AsyncSession, organization_id: str | None) -> tuple[RegistryLogin, ...]:
        """What a runner may show the registries of that organization."""
        if organization_id is None:
            return ()
        rows = await _all(db, organization_id)
        return tuple(RegistryLogin(row.url, row.username, self._seal.open(row.password_sealed)) for row in rows)


async def _all(db: AsyncSession, organization_id: str) -> Sequence[Registry]:
    theirs = select(Registry).where(Registry.organization_id == organization_id)
    return (await db.scalars(theirs.order_by(Registry.created_at, Registry.id))).all()


async def _find(db: AsyncSession, organization_id: str, registry_id: str) -> Registry:
    row = await db.get(Registry, registry_id)
    if row is None or row.organization_id != organization_id:
        raise NotFound(f"Docker registry with ID {registry_id} not found")
    return row
