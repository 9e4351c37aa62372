"""The organization operations that SDKs and the CLI read: there is one organization, the key's own."""

from litestar import get
from litestar.di import NamedDependency as Given
from litestar.params import FromPath

from sandyard_api.errors import Forbidden
from sandyard_api.jobs.wire import KeyGrant
from sandyard_api.options import ControlPlaneOptions
from sandyard_api.organizations.schemas import (
    AvailableClass,
    Member,
    OrganizationDto,
    RegionQuota,
    Usage,
    member,
    region_quota,
    region_use,
    shown,
)
from sandyard_api.organizations.service import Organizations
from sandyard_api.routing import Slice
from sandyard_api.sandboxes.service import Sandboxes


@get("/")
async def list_all(
    organizations: Given[Organizations], grant: Given[KeyGrant], options: Given[ControlPlaneOptions]
) -> list[OrganizationDto]:
    """listOrganizations"""
    return [await _shown(organizations, grant, options)]


@get("/{organization_id:str}")
async def read(
    organizations: Given[Organizations],
    grant: Given[KeyGrant],
    options: Given[ControlPlaneOptions],
    organization_id: FromPath[str],
) -> OrganizationDto:
    """getOrganization"""
    _check_own(grant, organization_id)
    return await _shown(organizations, grant, options)


@get("/{organization_id:str}/users")
async def members(
    organizations: Given[Organizations], grant: Given[KeyGrant], organization_id: FromPath[str]
) -> list[Member]:
    """listOrganizationMembers"""
    _check_own(grant, organization_id)
    return [member(user) for user in await organizations.users(organization_id)]


@get("/{organization_id:str}/usage")
async def usage(
    organizations: Given[Organizations],
    grant: Given[KeyGrant],
    options: Given[ControlPlaneOptions],
    organization_id: FromPath[str],
) -> Usage:
    """getOrganizationUsageOverview"""
    _check_own(grant, organization_id)
    limits, (snapshots, volumes) = options.limits, await organizations.counts(organization_id)
    return Usage(
        region_usage=[region_use(options.region, limits, await organizations.use(organization_id))],
        total_snapshot_quota=limits.snapshots,
        current_snapshot_usage=snapshots,
        total_volume_quota=limits.volumes,
        current_volume_usage=volumes,
    )


@get("/{organization_id:str}/available-sandbox-classes")
async def available_classes(
    grant: Given[KeyGrant], options: Given[ControlPlaneOptions], organization_id: FromPath[str]
) -> list[AvailableClass]:
    """listAvailableSandboxClasses"""
    _check_own(grant, organization_id)
    return [AvailableClass(options.region)]


@get("/{sandbox_ref:str}/organization")
async def of_sandbox(
    organizations: Given[Organizations],
    sandboxes: Given[Sandboxes],
    grant: Given[KeyGrant],
    options: Given[ControlPlaneOptions],
    key: Given[str],
) -> OrganizationDto:
    """getOrganizationBySandboxId"""
    await sandboxes.get(grant.organization_id, key)
    return await _shown(organizations, grant, options)


@get("/{sandbox_ref:str}/region-quota")
async def quota_of_sandbox(
    sandboxes: Given[Sandboxes], grant: Given[KeyGrant], options: Given[ControlPlaneOptions], key: Given[str]
) -> RegionQuota:
    """getRegionQuotaBySandboxId"""
    row = await sandboxes.get(grant.organization_id, key)
    return region_quota(row.organization_id, row.region, options.limits)


async def _shown(organizations: Organizations, grant: KeyGrant, options: ControlPlaneOptions) -> OrganizationDto:
    row, owner = await organizations.get(grant.organization_id)
    return shown(row, owner, options.limits, region=options.region, preview_warning=options.preview_warning)


def _check_own(grant: KeyGrant, organization_id: str) -> None:
    """A key speaks for its own organization only. Raises `Forbidden`."""
    if organization_id != grant.organization_id:
        raise Forbidden("Access denied")


SLICE = Slice("/api/organizations", [list_all, read, members, usage, available_classes])
OF_SANDBOXES = Slice("/api/sandbox", [of_sandbox, quota_of_sandbox])
