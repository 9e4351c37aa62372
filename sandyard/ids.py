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


class UsedDatabase(RuntimeError):
    """Identifiers by seed would meet those that the database holds already."""


class SeededIds:
    """The same identifiers in the same order for the same seed. For tests and repeatable runs only."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self.restart()

    def restart(self, seed: int | None = None) -> None:
        """Begin anew, with another seed if one is given."""
        self._seed = self._seed if seed is None else seed
        # Apart from each other, so that a token more or less does not shift the identifiers.
        self._uuids = random.Random(self._seed)  # noqa: S311  predictable on purpose
        self._tokens = random.Random(self._seed)  # noqa: S311

    def uuid(self) -> str:
        return str(uuid.UUID(int=self._uuids.getrandbits(128), version=4))

    def token(self, length: int = 32) -> str:
        return "".join(self._tokens.choice(TOKEN_ALPHABET) for _ in range(length))
