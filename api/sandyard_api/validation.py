"""Reading JSON bodies the way clients of the platform expect: every complaint at once, unknown fields ignored."""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from sandyard_api.database import UNSTORABLE
from sandyard_api.errors import BadRequest

UNSAFE_NAME = re.compile(
    r"<[^>]*>|(?:https?|ftp|ssh|wss?)://|(?:file|ldap|javascript|data|mailto|tel):|www\.|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]",
    re.IGNORECASE,
)
DATE_WITHOUT_COLON = re.compile(r"([+ -])(\d{2}):?(\d{2})$")
MAX_INTEGER = 2**31 - 1


def parse_json(body: bytes) -> object:
    """The value of a JSON body; an empty body is an empty object. Raises `BadRequest`."""
    if not body.strip():
        return {}
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadRequest("Invalid JSON in request body") from error


class Fields:
    """Takes typed values out of a JSON object and collects what is wrong with them. `None` and absence are the same."""

    def __init__(self, body: object) -> None:
        if not isinstance(body, dict):
            raise BadRequest("body must be an object")
        self._body: Mapping[str, Any] = body
        self._complaints: list[str] = []

    def check(self) -> None:
        """Raise `BadRequest` with every complaint so far."""
        if self._complaints:
            raise BadRequest(", ".join(self._complaints))

    @property
    def complaints(self) -> tuple[str, ...]:
        """Every complaint so far."""
        return tuple(self._complaints)

    def complain(self, text: str) -> None:
        """Add a complaint of the caller's own."""
        self._complaints.append(text)

    def raw(self, name: str) -> Any:
        """The value as it came."""
        return self._body.get(name)

    def string(self, name: str) -> str | None:
        """Text."""
        value = self._body.get(name)
        if value is None or (isinstance(value, str) and not UNSTORABLE.search(value)):
            return value
        self.complain(f"{name} must be a string")
        return None

    def name(self, name: str) -> str | None:
        """Text that is safe to show: no tags, URLs or control characters."""
        value = self.string(name)
        if value is not None and UNSAFE_NAME.search(value):
            self.complain(f"{name} must not contain HTML tags, URLs, or control characters")
        return value

    def boolean(self, name: str, default: bool = False) -> bool:
        """True or false."""
        value = self._body.get(name)
        if value is None:
            return default
        if isinstance(value, bool):
            return value
        self.complain(f"{name} must be a boolean value")
        return default

    def integer(self, name: str, *, minimum: int | None = None) -> int | None:
        """A whole number; `2.0` counts as one."""
        value = self._body.get(name)
        if value is None:
            return None
        # Floats alone are asked: an integer beyond all of them cannot be.
        is_number = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
        if isinstance(value, bool) or not is_number:
            self.complain(f"{name} must be a number conforming to the specified constraints")
            return None
        if minimum is not None and value < minimum:
            self.complain(f"{name} must not be less than {minimum}")
            return None
        if value != int(value) or abs(value) > MAX_INTEGER:
            self.complain(f"{name} must be an integer number")
            return None
        return int(value)

    def strings(self, name: str) -> dict[str, str]:
        """An object; values that are not text become it, as the platform does not check them."""
        value = self._body.get(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.complain(f"{name} must be an object")
            return {}
        texts = {str(key): _text(item) for key, item in value.items()}
        if any(UNSTORABLE.search(key + item) for key, item in texts.items()):
            self.complain(f"{name} must not contain NUL characters")
        return texts

    def list(self, name: str) -> list[Any]:
        """An array."""
        value = self._body.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            self.complain(f"{name} must be an array")
            return []
        return value


def _text(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def parse_time(name: str, text: str) -> datetime:
    """A date of a query: RFC 3339, offsets without a colon, a space where a plus was not escaped. UTC without offset.

    Raises `BadRequest`.
    """
    sign = {" ": "+"}
    normal = DATE_WITHOUT_COLON.sub(lambda match: f"{sign.get(match[1], match[1])}{match[2]}:{match[3]}", text.strip())
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text.strip()):
        normal = text.strip()
    try:
        parsed = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", normal))
        return parsed.astimezone(UTC) if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise BadRequest(f"{name} must be a valid ISO 8601 date string") from error
