"""Query strings in all the forms that clients send."""

import math
import re
from collections.abc import Sequence
from datetime import datetime
from urllib.parse import parse_qsl

from sandyard_api.database import UNSTORABLE
from sandyard_api.errors import BadRequest
from sandyard_api.validation import parse_time

MAX_FIELDS = 1_000
BRACKETS = re.compile(r"\[\d*\]$")


class Query:
    """A query string with typed reads. `a=1&a=2`, `a[]=1`, `a[0]=1` and `a=1,2` all make a list."""

    def __init__(self, query_string: bytes) -> None:
        self._values: dict[str, list[str]] = {}
        try:
            pairs = parse_qsl(query_string.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
        except ValueError as error:
            raise BadRequest(f"a query must not have more than {MAX_FIELDS} parameters") from error
        for name, value in pairs:
            if UNSTORABLE.search(value):
                raise BadRequest(f"{name} must not contain NUL characters")
            self._values.setdefault(BRACKETS.sub("", name), []).append(value)

    def text(self, name: str) -> str | None:
        """The last value; an empty one is none."""
        values = self._values.get(name)
        return (values[-1] or None) if values else None

    def texts(self, name: str) -> list[str]:
        """Every value."""
        return [part for value in self._values.get(name, ()) for part in value.split(",") if part]

    def flag(self, name: str) -> bool | None:
        """`true` or `false`."""
        value = self.text(name)
        if value is None:
            return None
        if value.lower() not in ("true", "false", "1", "0"):
            raise BadRequest(f"{name} must be a boolean value")
        return value.lower() in ("true", "1")

    def number(self, name: str) -> float | None:
        """A number; Go prints them as `1e+06`, where the plus may have become a space."""
        value = self.text(name)
        if value is None:
            return None
        try:
            number = float(value.replace(" ", "+"))
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise BadRequest(f"{name} must be a number conforming to the specified constraints")
        return number

    def whole(self, name: str, default: int, *, minimum: int, maximum: int) -> int:
        """A whole number in a range."""
        number = self.number(name)
        if number is None:
            return default
        if number < minimum:
            raise BadRequest(f"{name} must not be less than {minimum}")
        if number > maximum:
            raise BadRequest(f"{name} must not be greater than {maximum}")
        return int(number)

    def time(self, name: str) -> datetime | None:
        """A moment."""
        value = self.text(name)
        return None if value is None else parse_time(name, value)

    def choice(self, name: str, choices: Sequence[str], default: str) -> str:
        """One of some words."""
        value = self.text(name) or default
        if value not in choices:
            raise BadRequest(f"{name} must be one of the following values: {', '.join(choices)}")
        return value
