"""What clients see of a registry: never the password."""

from datetime import datetime

import msgspec

from sandyard_api.registries.models import Registry


class RegistryDto(msgspec.Struct, rename="camel", kw_only=True):
    """A registry."""

    id: str
    name: str
    url: str
    username: str
    project: str
    registry_type: str = "organization"
    created_at: datetime
    updated_at: datetime


def registry_dto(row: Registry) -> RegistryDto:
    """The row as an answer."""
    return RegistryDto(
        id=row.id,
        name=row.name,
        url=row.url,
        username=row.username,
        project=row.project,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
