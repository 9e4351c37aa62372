"""The registry operations of the public API."""

from litestar import delete, get, patch, post
from litestar.di import NamedDependency as Given

from sandyard_api.access import AnyRequest, may
from sandyard_api.jobs.wire import KeyGrant
from sandyard_api.registries.requests import read_new_registry, read_registry_changes
from sandyard_api.registries.schemas import RegistryDto, registry_dto
from sandyard_api.registries.service import Registries
from sandyard_api.routing import Slice
from sandyard_api.validation import parse_json

WRITE = [may("write:registries")]
DELETE = [may("delete:registries")]


@post("/", status_code=201, guards=WRITE)
async def create(request: AnyRequest, registries: Given[Registries], grant: Given[KeyGrant]) -> RegistryDto:
    """createRegistry"""
    wanted = read_new_registry(parse_json(await request.body()))
    return registry_dto(await registries.create(grant.organization_id, wanted))


@get("/")
async def list_registries(registries: Given[Registries], grant: Given[KeyGrant]) -> list[RegistryDto]:
    """listRegistries"""
    return [registry_dto(row) for row in await registries.list(grant.organization_id)]


@get("/{item_ref:str}")
async def read(registries: Given[Registries], grant: Given[KeyGrant], item_id: Given[str]) -> RegistryDto:
    """getRegistry"""
    return registry_dto(await registries.get(grant.organization_id, item_id))


@patch("/{item_ref:str}", guards=WRITE)
async def change(
    request: AnyRequest, registries: Given[Registries], grant: Given[KeyGrant], item_id: Given[str]
) -> RegistryDto:
    """updateRegistry"""
    wanted = read_registry_changes(parse_json(await request.body()))
    return registry_dto(await registries.change(grant.organization_id, item_id, wanted))


@delete("/{item_ref:str}", status_code=204, guards=DELETE)
async def remove(registries: Given[Registries], grant: Given[KeyGrant], item_id: Given[str]) -> None:
    """deleteRegistry"""
    await registries.delete(grant.organization_id, item_id)


SLICE = Slice(
    "/api/docker-registry",
    [create, list_registries, read, change, remove],
)
