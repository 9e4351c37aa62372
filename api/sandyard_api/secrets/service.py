"""Secrets: kept sealed, and handed to the runner of a sandbox that has them."""

from collections.abc import Mapping, Sequence

from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from sandyard.clock import Clock
from sandyard.ids import IdSource
from sandyard_api.database import Database
from sandyard_api.errors import BadRequest, Conflict, NotFound
from sandyard_api.jobs.wire import SecretGrant
from sandyard_api.sealing.service import Seal
from sandyard_api.secrets.models import Secret
from sandyard_api.secrets.requests import SecretFields

MAX_SECRETS = 1_000


class Secrets:
    """The verbs. Every method takes an organization and raises `NotFound` for what is not theirs."""

    def __init__(self, database: Database, clock: Clock, ids: IdSource, seal: Seal) -> None:
        self._database = database
        self._clock = clock
        self._ids = ids
        self._seal = seal

    async def create(self, organization_id: str, wanted: SecretFields) -> Secret:
        """Keep one. Raises `Conflict` for a name that is taken, `BadRequest` when there are too many."""
        now = self._clock.now()
        row = Secret(
            id=self._ids.uuid(),
            organization_id=organization_id,
            name=wanted.name,
            value_sealed=self._seal.close(wanted.value or ""),
            description=wanted.description,
            placeholder=f"dtn_secret_{self._ids.token(32)}",
            hosts=wanted.hosts or [],
            created_at=now,
            updated_at=now,
        )
        try:
            async with self._database.transaction() as db:
                theirs = select(func.count()).select_from(Secret).where(Secret.organization_id == organization_id)
                if (await db.scalar(theirs) or 0) >= MAX_SECRETS:
                    raise BadRequest(f"Secret quota exceeded. Maximum allowed: {MAX_SECRETS}")
                db.add(row)
        except IntegrityError as error:
            raise Conflict(f"Secret with name {wanted.name} already exists") from error
        return row

    async def list(self, organization_id: str) -> Sequence[Secret]:
        """All of them."""
        async with self._database.reading() as db:
            return (await db.scalars(select(Secret).where(Secret.organization_id == organization_id))).all()

    async def get(self, organization_id: str, secret_id: str) -> Secret:
        """One."""
        async with self._database.reading() as db:
            return await _find(db, organization_id, secret_id)

    async def change(self, organization_id: str, secret_id: str, wanted: SecretFields) -> Secret:
        """Write what was given. Sandboxes that run get it with the runner's next comparison."""
        async with self._database.transaction() as db:
            row = await _find(db, organization_id, secret_id)
            if wanted.value is not None:
                row.value_sealed = self._seal.close(wanted.value)
            if wanted.description is not None:
                row.description = wanted.description
            if wanted.hosts is not None:
                row.hosts = wanted.hosts
            row.updated_at = self._clock.now()
        return row

    async def delete(self, organization_id: str, secret_id: str) -> None:
        """Forget it; sandboxes that have it lose it."""
        async with self._database.transaction() as db:
            row = await _find(db, organization_id, secret_id)
            await db.execute(delete(Secret).where(Secret.id == row.id))

    async def resolve(self, db: AsyncSession, organization_id: str, mounts: Mapping[str, str]) -> dict[str, str]:
        """Names of secrets to their ids, by variable. Raises `NotFound` with the name of one that is not there."""
        found = select(Secret.name, Secret.id).where(
            Secret.organization_id == organization_id, Secret.name.in_(set(mounts.values()))
        )
        by_name = {name: secret_id for name, secret_id in await db.execute(found)}
        for name in mounts.values():
            if name not in by_name:
                raise NotFound(f"Secret {name} not found")
        return {variable: by_name[name] for variable, name in mounts.items()}

    async def grants(self, db: AsyncSession, mounts: Mapping[str, str]) -> tuple[SecretGrant, ...]:
        """What the runner needs to know of the secrets of a sandbox; one that was deleted is not among them."""
        if not mounts:
            return ()
        rows = {row.id: row for row in await db.scalars(select(Secret).where(Secret.id.in_(set(mounts.values()))))}
        return tuple(
            SecretGrant(variable, row.placeholder, self._seal.open(row.value_sealed), tuple(row.hosts))
            for variable, secret_id in mounts.items()
            if (row := rows.get(secret_id)) is not None
        )


async def _find(db: AsyncSession, organization_id: str, secret_id: str) -> Secret:
    row = await db.get(Secret, secret_id)
    if row is None or row.organization_id != organization_id:
        raise NotFound(f"Secret with ID {secret_id} not found")
    return row
