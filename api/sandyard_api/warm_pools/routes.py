"""The warm pool operations of the public API."""

from litestar import delete, get, patch, post
from litestar.di import NamedDependency as Given

from sandyard_api.access import AnyRequest, may
from sandyard_api.jobs.wire import KeyGrant
from sandyard_api.options import ControlPlaneOptions
from sandyard_api.routing import Slice
from sandyard_api.validation import parse_json
from sandyard_api.warm_pools.requests import read_new_pool, read_size
from sandyard_api.warm_pools.schemas import WarmPoolDto, pool_dto
from sandyard_api.warm_pools.service import WarmPools

WRITE = [may("write:sandboxes")]
DELETE = [may("delete:sandboxes")]


@post("/", status_code=201, guards=WRITE)
async def create(
    request: AnyRequest, warm_pools: Given[WarmPools], grant: Given[KeyGrant], options: Given[ControlPlaneOptions]
) -> WarmPoolDto:
    """createWarmPool"""
    wanted = read_new_pool(parse_json(await request.body()), region=options.region)
    return pool_dto(await warm_pools.create(grant.organization_id, wanted), 0)


@get("/")
async def list_pools(warm_pools: Given[WarmPools], grant: Given[KeyGrant]) -> list[WarmPoolDto]:
    """listWarmPools"""
    return [pool_dto(row, ready) for row, ready in await warm_pools.all(grant.organization_id)]


@patch("/{item_ref:str}", guards=WRITE)
async def resize(
    request: AnyRequest, warm_pools: Given[WarmPools], grant: Given[KeyGrant], item_id: Given[str]
) -> WarmPoolDto:
    """updateWarmPool"""
    size = read_size(parse_json(await request.body()))
    return pool_dto(*await warm_pools.resize(grant.organization_id, item_id, size))


@delete("/{item_ref:str}", status_code=204, guards=DELETE)
async def remove(warm_pools: Given[WarmPools], grant: Given[KeyGrant], item_id: Given[str]) -> None:
    """deleteWarmPool"""
    await warm_pools.delete(grant.organization_id, item_id)


SLICE = Slice("/api/warm-pools", [create, list_pools, resize, remove])
