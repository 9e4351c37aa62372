"""Reading what clients send about repositories: paths, names, revisions, credentials."""

import re
from typing import Any

from sandyard_daemon.environment import Environment
from sandyard_daemon.errors import BadRequest, InvalidBody
from sandyard_daemon.git.access import Credentials
from sandyard_daemon.http.messages import Request
from sandyard_daemon.routes.fields import optional_text, required_text, texts

SCOPES = ("global", "local", "system")

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# *Source:* git-check-ref-format(1), and what a revision is told apart from an option by.
_NO_REF_NAME = re.compile(r"^[-/]|[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|[/.]$|\.lock(/|$)|(^|/)\.|^@$")


def text(body: dict[str, Any], name: str) -> str:
    """A required string without NUL characters, as no argument of a program holds one. Raises `InvalidBody`."""
    return _without_nul(name, required_text(body, name))


def text_or_none(body: dict[str, Any], name: str) -> str | None:
    """The same where it may be absent; empty counts as absent. Raises `InvalidBody`."""
    value = optional_text(body, name)
    return _without_nul(name, value) if value else None


def line(body: dict[str, Any], name: str) -> str:
    """A required string of one line. Raises `InvalidBody`."""
    value = text(body, name)
    if _CONTROL.search(value):
        raise InvalidBody(f"{name} holds a control character")
    return value


def directory(body: dict[str, Any], environment: Environment) -> str:
    """The repository's place, absolute. Raises `InvalidBody`."""
    return environment.resolve(text(body, "path"))


def query_text(request: Request, name: str) -> str:
    """A required parameter of the query. Raises `BadRequest`."""
    value = request.query.get(name, "")
    if not value.strip():
        raise BadRequest(f"the query parameter {name} is required")
    if "\0" in value:
        raise BadRequest(f"{name} holds a NUL character")
    return value


def files(body: dict[str, Any], name: str = "files") -> list[str]:
    """A list of paths, there but perhaps empty. Raises `InvalidBody`."""
    if not isinstance(body.get(name), list):
        raise InvalidBody(f"{name} is required and must be a list of paths")
    names = texts(body, name)
    if "" in names:
        raise InvalidBody(f"{name} holds an empty path")
    return [_without_nul(name, each) for each in names]


def ref_name(name: str, value: str) -> str:
    """The name of a branch or remote, by git's own rules. Raises `BadRequest`."""
    if _NO_REF_NAME.search(value):
        raise BadRequest(f"{name}: {value!r} cannot be a name in git")
    return value


def revision(name: str, value: str) -> str:
    """What may name a commit; it can never be read as an option. Raises `BadRequest`."""
    if value.startswith("-") or _CONTROL.search(value):
        raise BadRequest(f"{name}: {value!r} cannot name a commit")
    return value


def credentials(body: dict[str, Any]) -> Credentials | None:
    """Where both are given, as in the original. Raises `InvalidBody`."""
    username, password = text_or_none(body, "username"), text_or_none(body, "password")
    if username is None or password is None:
        return None
    for name, value in (("username", username), ("password", password)):
        if _CONTROL.search(value):
            raise InvalidBody(f"{name} holds a control character")
    return Credentials(username, password)


def depth(body: dict[str, Any]) -> int | None:
    """A number of commits; `None` when absent or 0. Raises `InvalidBody`."""
    value = body.get("depth")
    if value is None or (value == 0 and not isinstance(value, bool)):
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 31:
        raise InvalidBody("depth must be a number of commits")
    return value


def scope(value: str | None) -> str:
    """Where a setting lives; global when not told. Raises `BadRequest`."""
    if value and value not in SCOPES:
        raise BadRequest(f"scope must be one of {', '.join(SCOPES)}")
    return value or SCOPES[0]


def _without_nul(name: str, value: str) -> str:
    if "\0" in value:
        raise InvalidBody(f"{name} holds a NUL character")
    return value
