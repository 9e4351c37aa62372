"""Identifiers and tokens as an argument, so that a run can be repeated with the same ones."""

import random
import secrets
import uuid
from typing import Protocol

TOKEN_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"  # noqa: S105  an alphabet, not a token


class IdSource(Protocol):
    """Where identifiers and tokens come from."""

    def uuid(self) -> str:
        """A version 4 UUID in its usual text form."""

    def token(self, length: int = 32) -> str:
        """`length` lowercase letters and digits."""


class RandomIds:
    """Unpredictable identifiers; the only source fit for real credentials."""

    def uuid(self) -> str:
        return str(uuid.uuid4())

    def token(self, length: int = 32) -> str:
        return "".join(secrets.choice(TOKEN_ALPHABET) for _ in range(length))


class SeededIds:
    """The same identifiers in the same order for the same seed. For tests and repeatable runs only."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)  # noqa: S311  predictable on purpose

    def uuid(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def token(self, length: int = 32) -> str:
        return "".join(self._random.choice(TOKEN_ALPHABET) for _ in range(length))
