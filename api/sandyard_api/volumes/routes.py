"""The volume operations of the public API."""

from litestar import delete, get, post
from litestar.di import NamedDependency as Given
from litestar.response.base import ASGIResponse

from sandyard_api.access import AnyRequest, may
from sandyard_api.jobs.wire import KeyGrant
from sandyard_api.queries import Query
from sandyard_api.routing import Slice
from sandyard_api.validation import parse_json
from sandyard_api.volumes.requests import read_new_volume
from sandyard_api.volumes.schemas import VolumeDto, volume_dto
from sandyard_api.volumes.service import Volumes

READ = [may("read:volumes")]
WRITE = [may("write:volumes")]
DELETE = [may("delete:volumes")]


@get("/", guards=READ)
async def list_volumes(request: AnyRequest, volumes: Given[Volumes], grant: Given[KeyGrant]) -> list[VolumeDto]:
    """listVolumes"""
    with_deleted = bool(Query(request.scope["query_string"]).flag("includeDeleted"))
    return [volume_dto(row) for row in await volumes.list(grant.organization_id, include_deleted=with_deleted)]


@post("/", status_code=200, guards=WRITE)
async def create(request: AnyRequest, volumes: Given[Volumes], grant: Given[KeyGrant]) -> VolumeDto:
    """createVolume"""
    name = read_new_volume(parse_json(await request.body()))
    return volume_dto(await volumes.create(grant.organization_id, name))


@get("/{item_ref:str}", guards=READ)
async def read(volumes: Given[Volumes], grant: Given[KeyGrant], item_id: Given[str]) -> VolumeDto:
    """getVolume"""
    return volume_dto(await volumes.get(grant.organization_id, item_id))


@get("/by-name/{item_ref:str}", guards=READ)
async def read_by_name(volumes: Given[Volumes], grant: Given[KeyGrant], item_id: Given[str]) -> VolumeDto:
    """getVolumeByName"""
    return volume_dto(await volumes.get_by_name(grant.organization_id, item_id))


@delete("/{item_ref:str}", status_code=200, guards=DELETE)
async def remove(volumes: Given[Volumes], grant: Given[KeyGrant], item_id: Given[str]) -> ASGIResponse:
    """deleteVolume"""
    await volumes.delete(grant.organization_id, item_id)
    return ASGIResponse(status_code=200)


SLICE = Slice("/api/volumes", [list_volumes, create, read, read_by_name, remove])
