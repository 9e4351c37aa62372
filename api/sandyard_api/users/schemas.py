"""What clients see of a user."""

from datetime import datetime

import msgspec

from sandyard_api.users.models import User


class UserDto(msgspec.Struct, rename="camel"):
    """A user as they see themselves."""

    id: str
    name: str
    email: str
    created_at: datetime
    email_verified: bool = True
    public_keys: list[str] = []


def shown(row: User) -> UserDto:
    """A user's record."""
    return UserDto(row.id, row.name, row.email, row.created_at)
