"""Tokens at rest: hashed where we only compare them, encrypted where we must show them again."""

import hashlib

from cryptography.fernet import Fernet, InvalidToken
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from sandyard_api.database import Database
from sandyard_api.sandboxes.models import Sandbox
from sandyard_api.sealing.models import SealCheck

CHECK_ID = "encryption-key"
CHECK_TEXT = "sandyard"


class WrongKey(RuntimeError):
    """The encryption key is not the one that the database was written with, or none at all."""


def fingerprint(token: str) -> str:
    """The SHA-256 of a token in hexadecimal: what the database keeps of it."""
    return hashlib.sha256(token.encode()).hexdigest()


class Seal:
    """Encrypts tokens that users are shown again. `key` is a Fernet key: 32 bytes as URL-safe base64."""

    def __init__(self, key: str) -> None:
        try:
            self._fernet = Fernet(key.encode())
        except ValueError as error:
            raise WrongKey("SANDYARD_ENCRYPTION_KEY must be a Fernet key: 32 bytes as URL-safe base64") from error

    def close(self, token: str) -> str:
        """The encrypted form; another one at every call."""
        return self._fernet.encrypt(token.encode()).decode()

    def open(self, sealed: str) -> str:
        """The token again. Raises `cryptography.fernet.InvalidToken` when the key is another one."""
        return self._fernet.decrypt(sealed.encode()).decode()


async def check_key(database: Database, seal: Seal) -> None:
    """Raise `WrongKey` unless `seal` opens what the database holds; at the first start, seal what later ones check."""
    try:
        async with database.transaction() as db:
            sealed = await db.scalar(select(SealCheck.sealed).where(SealCheck.id == CHECK_ID))
            if sealed is None:
                # A database from before there was a check may hold sandboxes: their tokens tell as much.
                sealed = await db.scalar(select(Sandbox.door_secret_sealed).limit(1))
                db.add(SealCheck(id=CHECK_ID, sealed=seal.close(CHECK_TEXT)))
            _check_opens(seal, sealed)
    except IntegrityError:  # another replica was first; its key counts
        async with database.reading() as db:
            _check_opens(seal, await db.scalar(select(SealCheck.sealed).where(SealCheck.id == CHECK_ID)))


def _check_opens(seal: Seal, sealed: str | None) -> None:
    try:
        if sealed is not None:
            seal.open(sealed)
    except InvalidToken as error:
        raise WrongKey(
            "the database was written with another encryption key: set SANDYARD_ENCRYPTION_KEY to that one "
            "(it was kept as `encryption-key` in the data directory), or use an empty database"
        ) from error
