"""What clients see of a region."""

from datetime import datetime

import msgspec


class RegionDto(msgspec.Struct, rename="camel"):
    """A place where sandboxes run; clients send its id as `target`."""

    id: str
    name: str
    created_at: datetime
    updated_at: datetime
    proxy_url: str
    region_type: str = "shared"
    organization_id: str | None = None
    ssh_gateway_url: str | None = None
    snapshot_manager_url: str | None = None
