"""Reading one field of a JSON body: the type is checked, `null` counts as absent."""

import re
from typing import Any

from sandyard_daemon.errors import InvalidBody

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def required_text(body: dict[str, Any], name: str) -> str:
    """A string that is not blank. Raises `InvalidBody`."""
    value = optional_text(body, name)
    if value is None or not value.strip():
        raise InvalidBody(f"{name} is required and must be a non-empty string")
    return value


def optional_text(body: dict[str, Any], name: str) -> str | None:
    """Raises `InvalidBody`."""
    value = body.get(name.lower())
    if value is not None and not isinstance(value, str):
        raise InvalidBody(f"{name} must be a string")
    return value


def flag(body: dict[str, Any], name: str) -> bool:
    """False when absent. Raises `InvalidBody`."""
    value = body.get(name.lower())
    if value is not None and not isinstance(value, bool):
        raise InvalidBody(f"{name} must be true or false")
    return bool(value)


def seconds(body: dict[str, Any], name: str) -> float | None:
    """A number of seconds; `None` when absent or 0. Raises `InvalidBody`."""
    value = body.get(name.lower())
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0):
        raise InvalidBody(f"{name} must be a number of seconds, not negative")
    return float(value) if value else None


def variables(body: dict[str, Any], name: str) -> dict[str, str]:
    """Environment variables, name to value. Raises `InvalidBody`."""
    value = body.get(name.lower()) or {}
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise InvalidBody(f"{name} must map names to strings")
    for key, item in value.items():
        if _NAME.fullmatch(key) is None:
            raise InvalidBody(f"{name}: {key!r} is not a name of an environment variable")
        if "\0" in item:
            raise InvalidBody(f"{name}: the value of {key} holds a NUL character")
    return dict(value)


def texts(body: dict[str, Any], name: str) -> list[str]:
    """A list of strings. Raises `InvalidBody`."""
    value = body.get(name.lower()) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidBody(f"{name} must be a list of strings")
    return list(value)
