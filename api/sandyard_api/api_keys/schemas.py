"""What clients see of API keys: the key itself once, when it is made."""

from datetime import datetime

import msgspec

from sandyard_api.api_keys.models import ApiKey

MASK = "*" * 20


class ApiKeyDto(msgspec.Struct, rename="camel"):
    """A key as a listing shows it."""

    name: str
    value: str
    created_at: datetime
    permissions: list[str]
    last_used_at: datetime | None
    expires_at: datetime | None
    user_id: str
    organization_id: str


class NewApiKeyDto(msgspec.Struct, rename="camel"):
    """A key that was just made; `value` is never shown again."""

    name: str
    value: str
    created_at: datetime
    permissions: list[str]
    expires_at: datetime | None


def masked(row: ApiKey) -> ApiKeyDto:
    """The record without the key."""
    return ApiKeyDto(
        name=row.name,
        value=f"{row.prefix}{MASK}{row.suffix}",
        created_at=row.created_at,
        permissions=row.permissions,
        last_used_at=row.last_used_at,
        expires_at=row.expires_at,
        user_id=row.user_id,
        organization_id=row.organization_id,
    )


def shown_once(row: ApiKey, key: str) -> NewApiKeyDto:
    """The record with the key."""
    return NewApiKeyDto(row.name, key, row.created_at, row.permissions, row.expires_at)
