"""The one user operation that the CLI reads."""

from litestar import get
from litestar.di import NamedDependency as Given

from sandyard_api.jobs.wire import KeyGrant
from sandyard_api.organizations.service import Organizations
from sandyard_api.routing import Slice
from sandyard_api.users.schemas import UserDto, shown


@get("/me")
async def me(organizations: Given[Organizations], grant: Given[KeyGrant]) -> UserDto:
    """getAuthenticatedUser"""
    return shown(await organizations.user(grant.user_id))


SLICE = Slice("/api/users", [me])
