"""What clients see of a warm pool."""

from datetime import datetime

import msgspec

from sandyard_api.sandboxes.schemas import DEFAULT_USER
from sandyard_api.warm_pools.models import WarmPool


class WarmPoolDto(msgspec.Struct, rename="camel", kw_only=True):
    """A pool and how full it is."""

    id: str
    organization_id: str
    snapshot: str
    target: str
    pool: int
    current_size: int
    cpu: int
    mem: int
    disk: int
    os_user: str = DEFAULT_USER
    env: dict[str, str] = {}
    error_reason: str | None
    created_at: datetime
    updated_at: datetime


def pool_dto(row: WarmPool, ready: int) -> WarmPoolDto:
    """The row as an answer; `ready`: how many wait in it, started."""
    return WarmPoolDto(
        id=row.id,
        organization_id=row.organization_id,
        snapshot=row.snapshot,
        target=row.region,
        pool=row.size,
        current_size=ready,
        cpu=row.cpu,
        mem=row.memory_gib,
        disk=row.disk_gib,
        error_reason=row.error_reason,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
