"""What clients see of a volume."""

from datetime import datetime

import msgspec

from sandyard_api.volumes.models import Volume

READY = "ready"
DELETED = "deleted"


class VolumeDto(msgspec.Struct, rename="camel", kw_only=True):
    """A volume. It is ready as soon as it is there."""

    id: str
    name: str
    organization_id: str
    state: str
    created_at: datetime
    updated_at: datetime
    last_used_at: datetime | None
    error_reason: str | None = None


def volume_dto(row: Volume) -> VolumeDto:
    """The row as an answer."""
    return VolumeDto(
        id=row.id,
        name=row.name,
        organization_id=row.organization_id,
        state=READY if row.deleted_at is None else DELETED,
        created_at=row.created_at,
        updated_at=row.updated_at,
        last_used_at=row.last_used_at,
    )
