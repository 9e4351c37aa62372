"""What clients see of the organization. There is one, and much of this only fills their models."""

from datetime import UTC, datetime

import msgspec

from sandyard_api.organizations.models import Organization
from sandyard_api.quotas.limits import Limits
from sandyard_api.quotas.service import Use
from sandyard_api.users.models import User

NEVER = datetime(1970, 1, 1, tzinfo=UTC)
"""The Python models want a real time where there is none."""
CONTAINER = "container"


class OrganizationDto(msgspec.Struct, rename="camel"):
    """An organization with every key that the generated clients require."""

    id: str
    name: str
    created_by: str
    created_at: datetime
    updated_at: datetime
    max_cpu_per_sandbox: int
    max_memory_per_sandbox: int
    max_disk_per_sandbox: int
    preview_warning_enabled: bool
    default_region_id: str
    personal: bool = True
    suspended: bool = False
    suspended_at: datetime = NEVER
    suspension_reason: str = ""
    suspended_until: datetime = NEVER
    suspension_cleanup_grace_period_hours: int = 24
    secret_quota: int = 1_000
    max_secrets_per_sandbox: int = 100
    snapshot_deactivation_timeout_minutes: int = 20_160
    sandbox_limited_network_egress: bool = False
    sso_enabled: bool = False
    scim_enabled: bool = False
    default_queue_timeout: int | None = None
    authenticated_rate_limit: int | None = None
    sandbox_create_rate_limit: int | None = None
    sandbox_lifecycle_rate_limit: int | None = None
    authenticated_rate_limit_ttl_seconds: int | None = None
    sandbox_create_rate_limit_ttl_seconds: int | None = None
    sandbox_lifecycle_rate_limit_ttl_seconds: int | None = None
    experimental_config: dict[str, str] = {}
    otel_config: None = None


class Member(msgspec.Struct, rename="camel"):
    """Somebody of an organization."""

    user_id: str
    organization_id: str
    name: str
    email: str
    created_at: datetime
    updated_at: datetime
    role: str = "owner"
    assigned_roles: list[str] = []


class RegionUse(msgspec.Struct, rename="camel"):
    """Limits and use in one region."""

    region_id: str
    total_cpu_quota: int
    current_cpu_usage: int
    total_memory_quota: int
    current_memory_usage: int
    total_disk_quota: int
    current_disk_usage: int
    max_cpu_per_sandbox: int
    max_memory_per_sandbox: int
    max_disk_per_sandbox: int
    sandbox_class: str = CONTAINER
    total_gpu_quota: int = 0
    current_gpu_usage: int = 0
    max_disk_per_non_ephemeral_sandbox: int | None = None
    max_cpu_per_gpu: int | None = None
    max_memory_per_gpu: int | None = None
    max_disk_per_gpu: int | None = None


class RegionQuota(msgspec.Struct, rename="camel"):
    """Limits in one region."""

    organization_id: str
    region_id: str
    total_cpu_quota: int
    total_memory_quota: int
    total_disk_quota: int
    max_cpu_per_sandbox: int
    max_memory_per_sandbox: int
    max_disk_per_sandbox: int
    sandbox_class: str = CONTAINER
    total_gpu_quota: int = 0
    max_disk_per_non_ephemeral_sandbox: int | None = None
    max_cpu_per_gpu: int | None = None
    max_memory_per_gpu: int | None = None
    max_disk_per_gpu: int | None = None
    max_sandbox_lifespan: int | None = None


class Usage(msgspec.Struct, rename="camel"):
    """Limits and use of an organization."""

    region_usage: list[RegionUse]
    total_snapshot_quota: int
    current_snapshot_usage: int
    total_volume_quota: int
    current_volume_usage: int


class AvailableClass(msgspec.Struct, rename="camel"):
    """A kind of sandbox that a region offers."""

    region_id: str
    sandbox_class: str = CONTAINER
    gpu_available: bool = False
    allowed_gpu_types: list[str] = []


def shown(row: Organization, owner: User, limits: Limits, *, region: str, preview_warning: bool) -> OrganizationDto:
    """The organization with its limits."""
    return OrganizationDto(
        id=row.id,
        name=row.name,
        created_by=owner.id,
        created_at=row.created_at,
        updated_at=row.created_at,
        max_cpu_per_sandbox=limits.sandbox_cpu,
        max_memory_per_sandbox=limits.sandbox_memory,
        max_disk_per_sandbox=limits.sandbox_disk,
        preview_warning_enabled=preview_warning,
        default_region_id=region,
    )


def member(user: User) -> Member:
    """A user as the organization's owner."""
    return Member(user.id, user.organization_id, user.name, user.email, user.created_at, user.created_at)


def region_quota(organization_id: str, region: str, limits: Limits) -> RegionQuota:
    """The limits as a region's quota."""
    return RegionQuota(
        organization_id=organization_id,
        region_id=region,
        total_cpu_quota=limits.cpu,
        total_memory_quota=limits.memory,
        total_disk_quota=limits.disk,
        max_cpu_per_sandbox=limits.sandbox_cpu,
        max_memory_per_sandbox=limits.sandbox_memory,
        max_disk_per_sandbox=limits.sandbox_disk,
    )


def region_use(region: str, limits: Limits, used: Use) -> RegionUse:
    """Limits and use side by side."""
    return RegionUse(
        region_id=region,
        total_cpu_quota=limits.cpu,
        current_cpu_usage=used.cpu,
        total_memory_quota=limits.memory,
        current_memory_usage=used.memory,
        total_disk_quota=limits.disk,
        current_disk_usage=used.disk,
        max_cpu_per_sandbox=limits.sandbox_cpu,
        max_memory_per_sandbox=limits.sandbox_memory,
        max_disk_per_sandbox=limits.sandbox_disk,
    )
