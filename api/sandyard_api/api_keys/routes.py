"""The API key operations of the public API."""

from litestar import Router, get
from litestar.di import NamedDependency as Given

from sandyard_api.api_keys.schemas import ApiKeyDto, masked
from sandyard_api.api_keys.service import ApiKeys
from sandyard_api.jobs.wire import KeyGrant


@get("/current")
async def current(keys: Given[ApiKeys], grant: Given[KeyGrant]) -> ApiKeyDto:
    """getCurrentApiKey"""
    return masked(await keys.row(grant.key_id))


ROUTER = Router(path="/api/api-keys", route_handlers=[current])
