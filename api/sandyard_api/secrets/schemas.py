"""What clients see of a secret: never the value."""

from datetime import datetime

import msgspec
from msgspec import UNSET, UnsetType

from sandyard_api.secrets.models import Secret


class SecretDto(msgspec.Struct, rename="camel", kw_only=True):
    """A secret."""

    id: str
    name: str
    description: str | UnsetType = UNSET
    placeholder: str
    hosts: list[str]
    created_at: datetime
    updated_at: datetime


class SecretPage(msgspec.Struct, rename="camel"):
    """A page of secrets; `next_cursor` is there even when null."""

    items: list[SecretDto]
    total: int
    next_cursor: str | None


def secret_dto(row: Secret) -> SecretDto:
    """The row as an answer."""
    return SecretDto(
        id=row.id,
        name=row.name,
        description=row.description if row.description is not None else UNSET,
        placeholder=row.placeholder,
        hosts=row.hosts,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
