"""The region operations of the public API: there is one region, and it is as old as the installation."""

from urllib.parse import unquote

from litestar import get
from litestar.di import NamedDependency as Given
from litestar.params import FromPath

from sandyard_api.access import PUBLIC
from sandyard_api.errors import NotFound
from sandyard_api.options import ControlPlaneOptions
from sandyard_api.organizations.service import Organizations
from sandyard_api.origins import Origin
from sandyard_api.regions.schemas import RegionDto
from sandyard_api.routing import Slice


@get("/regions")
async def available(
    organizations: Given[Organizations], options: Given[ControlPlaneOptions], origin: Given[Origin]
) -> list[RegionDto]:
    """listAvailableRegions"""
    return [await _region(organizations, options, origin)]


@get("/shared-regions", opt={PUBLIC: True})
async def shared(
    organizations: Given[Organizations], options: Given[ControlPlaneOptions], origin: Given[Origin]
) -> list[RegionDto]:
    """listSharedRegions"""
    return [await _region(organizations, options, origin)]


@get("/regions/{region_id:str}")
async def read(
    organizations: Given[Organizations],
    options: Given[ControlPlaneOptions],
    origin: Given[Origin],
    region_id: FromPath[str],
) -> RegionDto:
    """getRegionById"""
    if unquote(region_id) != options.region:
        raise NotFound("Region not found")
    return await _region(organizations, options, origin)


async def _region(organizations: Organizations, options: ControlPlaneOptions, origin: Origin) -> RegionDto:
    born = await organizations.installed_at()
    return RegionDto(options.region, options.region, born, born, origin.url)


SLICE = Slice("/api", [available, shared, read])
