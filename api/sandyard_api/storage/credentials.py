"""Short-lived credentials for the object storage, which prove themselves: nothing of them is kept."""

import hashlib
import hmac
from datetime import datetime, timedelta

import msgspec
from cryptography.fernet import InvalidToken

from sandyard_api.sealing.service import Seal

LIFETIME = timedelta(hours=1)


class StorageCredentials(msgspec.Struct, frozen=True):
    """What a client signs with."""

    access_key: str
    secret: str
    session_token: str


class StorageGrant(msgspec.Struct, frozen=True):
    """What valid credentials stand for: the objects of one organization."""

    organization_id: str
    access_key: str
    secret: str
    expires_at: datetime


class _Sealed(msgspec.Struct):
    organization_id: str
    access_key: str
    secret: str
    expires_at: datetime


class StorageKeys:
    """Issues credentials and knows its own again. The session token carries the rest, sealed."""

    def __init__(self, seal: Seal) -> None:
        self._seal = seal

    def issue(self, organization_id: str, access_key: str, secret: str, now: datetime) -> StorageCredentials:
        """Credentials for an hour; `access_key` and `secret` are random."""
        sealed = _Sealed(organization_id, access_key, secret, now + LIFETIME)
        token = self._seal.close(msgspec.json.encode(sealed).decode())
        return StorageCredentials(access_key, secret, token)

    def open(self, session_token: str, now: datetime) -> StorageGrant | None:
        """What a session token stands for; `None` when it is not ours or too old."""
        try:
            sealed = msgspec.json.decode(self._seal.open(session_token), type=_Sealed)
        except (InvalidToken, msgspec.MsgspecError, UnicodeError):
            return None
        if sealed.expires_at <= now:
            return None
        return StorageGrant(sealed.organization_id, sealed.access_key, sealed.secret, sealed.expires_at)


def signing_key(secret: str, scope: tuple[str, ...]) -> bytes:
    """The key of a day, region and service. *Source:* AWS Signature Version 4."""
    key = f"AWS4{secret}".encode()
    for part in scope:
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key
