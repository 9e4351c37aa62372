"""The organization and its owner, made at the first start."""

from sqlalchemy import select

from sandyard.clock import Clock
from sandyard.ids import IdSource
from sandyard_api.database import Database
from sandyard_api.organizations.models import Organization
from sandyard_api.users.models import User

DEFAULT_ORGANIZATION = "default"
OWNER = "owner"


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
