"""Short-lived logins at our own registry, which prove themselves: nothing of them is kept."""

import hmac
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec
from cryptography.fernet import InvalidToken

from sandyard.concealing import Concealing
from sandyard_api.sealing.service import Seal

LIFETIME = timedelta(hours=1)


class Scope(StrEnum):
    """What a login is good for; also its user name."""

    PUSH = "push"
    """Reading, writing and deleting."""
    PULL = "pull"
    """Reading alone."""


class ImageLogin(Concealing, frozen=True):
    """What a client shows the registry."""

    concealed = frozenset({"secret"})

    username: str
    secret: str
    expires_at: datetime


class ImageGrant(msgspec.Struct, frozen=True):
    """What a valid login stands for: the repositories of one organization."""

    organization_id: str
    scope: Scope


class _Sealed(msgspec.Struct, tag="image-registry"):
    """The tag keeps apart what else is sealed with the same key and shown to clients."""

    organization_id: str
    scope: Scope
    expires_at: datetime


class ImageKeys:
    """Issues logins and knows its own again. The secret carries the rest, sealed."""

    def __init__(self, seal: Seal) -> None:
        self._seal = seal

    def issue(self, organization_id: str, scope: Scope, now: datetime) -> ImageLogin:
        """A login for an hour."""
        sealed = _Sealed(organization_id, scope, now + LIFETIME)
        return ImageLogin(scope.value, self._seal.close(msgspec.json.encode(sealed).decode()), sealed.expires_at)

    def open(self, username: str, secret: str, now: datetime) -> ImageGrant | None:
        """What a login stands for; `None` when it is not ours or too old."""
        try:
            sealed = msgspec.json.decode(self._seal.open(secret), type=_Sealed)
        except (InvalidToken, msgspec.MsgspecError, UnicodeError):
            return None
        if sealed.expires_at <= now or not hmac.compare_digest(sealed.scope.encode(), username.encode()):
            return None
        return ImageGrant(sealed.organization_id, sealed.scope)
