"""Tokens at rest: hashed where we only compare them, encrypted where we must show them again."""

import hashlib

from cryptography.fernet import Fernet


def fingerprint(token: str) -> str:
    """The SHA-256 of a token in hexadecimal: what the database keeps of it."""
    return hashlib.sha256(token.encode()).hexdigest()


class Seal:
    """Encrypts tokens that users are shown again. `key` is a Fernet key: 32 bytes as URL-safe base64."""

    def __init__(self, key: str) -> None:
        self._fernet = Fernet(key.encode())

    def close(self, token: str) -> str:
        """The encrypted form; another one at every call."""
        return self._fernet.encrypt(token.encode()).decode()

    def open(self, sealed: str) -> str:
        """The token again. Raises `cryptography.fernet.InvalidToken` when the key is another one."""
        return self._fernet.decrypt(sealed.encode()).decode()
