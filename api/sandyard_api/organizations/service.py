"""The organization and its owner, made at the first start, and what it uses."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, select

from sandyard.clock import Clock
from sandyard.ids import IdSource
from sandyard_api.database import Database
from sandyard_api.organizations.models import Organization
from sandyard_api.quotas.service import Use, snapshots_in_use, use, volumes_in_use
from sandyard_api.users.models import User

DEFAULT_ORGANIZATION = "default"
OWNER = "owner"


class Organizations:
    """Reads; nothing here changes anything."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, organization_id: str) -> tuple[Organization, User]:
        """An organization that exists, and its owner."""
        async with self._database.reading() as db:
            owner = select(User).where(User.organization_id == organization_id).order_by(User.created_at).limit(1)
            return await db.get_one(Organization, organization_id), (await db.scalars(owner)).one()

    async def users(self, organization_id: str) -> Sequence[User]:
        """Everybody who may hold keys, the oldest first."""
        async with self._database.reading() as db:
            of_it = select(User).where(User.organization_id == organization_id).order_by(User.created_at)
            return (await db.scalars(of_it)).all()

    async def use(self, organization_id: str) -> Use:
        """What its sandboxes use now."""
        async with self._database.reading() as db:
            return await use(db, organization_id)

    async def counts(self, organization_id: str) -> tuple[int, int]:
        """How many snapshots and volumes it has, as the limits count them."""
        async with self._database.reading() as db:
            return await snapshots_in_use(db, organization_id), await volumes_in_use(db, organization_id)

    async def installed_at(self) -> datetime:
        """When the first start was."""
        async with self._database.reading() as db:
            return (await db.scalars(select(func.min(Organization.created_at)))).one()

    async def user(self, user_id: str) -> User:
        """A user that exists."""
        async with self._database.reading() as db:
            return await db.get_one(User, user_id)


async def keep_default_organization(database: Database, clock: Clock, ids: IdSource) -> tuple[str, str]:
    """Ids of the one organization and of its owner."""
    async with database.transaction() as db:
        organization = await db.scalar(select(Organization).where(Organization.name == DEFAULT_ORGANIZATION))
        if organization is None:
            organization = Organization(id=ids.uuid(), name=DEFAULT_ORGANIZATION, created_at=clock.now())
            db.add(organization)
            await db.flush()
        user = await db.scalar(select(User).where(User.organization_id == organization.id, User.name == OWNER))
        if user is None:
            user = User(
                id=ids.uuid(),
                organization_id=organization.id,
                name=OWNER,
                email="owner@localhost",
                created_at=clock.now(),
            )
            db.add(user)
        return organization.id, user.id
