"""The API key operations of the public API."""

from datetime import datetime
from urllib.parse import unquote

from litestar import delete, get, post
from litestar.di import NamedDependency as Given
from litestar.params import FromPath

from sandyard_api.access import AnyRequest, may
from sandyard_api.api_keys.schemas import ApiKeyDto, NewApiKeyDto, masked, shown_once
from sandyard_api.api_keys.service import PERMISSIONS, ApiKeys
from sandyard_api.errors import NotFound
from sandyard_api.jobs.wire import KeyGrant
from sandyard_api.routing import Slice
from sandyard_api.validation import Fields, parse_json, parse_time

MANAGE = [may("manage:api_keys")]
MAX_NAME = 255


@post("/", status_code=201, guards=MANAGE)
async def create(request: AnyRequest, keys: Given[ApiKeys], grant: Given[KeyGrant]) -> NewApiKeyDto:
    """createApiKey"""
    name, permissions, expires_at = _read_create(parse_json(await request.body()))
    return shown_once(*await keys.create(grant, name, permissions=permissions, expires_at=expires_at))


@get("/")
async def list_all(keys: Given[ApiKeys], grant: Given[KeyGrant]) -> list[ApiKeyDto]:
    """listApiKeys"""
    return [masked(row) for row in await keys.all(grant)]


@get("/current")
async def current(keys: Given[ApiKeys], grant: Given[KeyGrant]) -> ApiKeyDto:
    """getCurrentApiKey"""
    return masked(await keys.row(grant.key_id))


@get("/{name:str}")
async def read(keys: Given[ApiKeys], grant: Given[KeyGrant], name: FromPath[str]) -> ApiKeyDto:
    """getApiKey"""
    return masked(await keys.named(grant, unquote(name)))


@delete("/{name:str}", status_code=204, guards=MANAGE)
async def revoke(keys: Given[ApiKeys], grant: Given[KeyGrant], name: FromPath[str]) -> None:
    """deleteApiKey"""
    await keys.revoke(grant, unquote(name))


@delete("/{user_id:str}/{name:str}", status_code=204, guards=MANAGE)
async def revoke_of_user(
    keys: Given[ApiKeys], grant: Given[KeyGrant], user_id: FromPath[str], name: FromPath[str]
) -> None:
    """deleteApiKeyForUser"""
    if unquote(user_id) != grant.user_id:
        raise NotFound("API key not found")
    await keys.revoke(grant, unquote(name))


def _read_create(body: object) -> tuple[str, list[str], datetime | None]:
    """Name, permissions and expiry. Raises `BadRequest`."""
    fields = Fields(body)
    name, permissions, expires = fields.name("name"), fields.list("permissions"), fields.string("expiresAt")
    if not name or len(name) > MAX_NAME:
        fields.complain(f"name must be a text of 1 to {MAX_NAME} characters")
    if fields.raw("permissions") is None:
        fields.complain("permissions must be an array")
    if any(each not in PERMISSIONS for each in permissions):
        fields.complain(f"each value in permissions must be one of the following values: {', '.join(PERMISSIONS)}")
    fields.check()
    return name or "", list(dict.fromkeys(permissions)), parse_time("expiresAt", expires) if expires else None


SLICE = Slice("/api/api-keys", [create, list_all, current, read, revoke, revoke_of_user])
