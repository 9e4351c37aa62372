"""Paths as clients name them, how they are shown again, and what the system's refusals become."""

import errno
from collections.abc import Mapping
from urllib.parse import parse_qsl

from sandyard_daemon.errors import BadRequest, DaemonError, FileAccessDenied, FileMissing, Internal
from sandyard_daemon.http.messages import Request

_DENIED = frozenset({errno.EACCES, errno.EPERM})
_OURS = frozenset({errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Nothing that another request of the client could make good."""


def query_of(request: Request) -> Mapping[str, str]:
    """The query; bytes that are no UTF-8 become what `os.fsencode` turns back, so that every name can be said."""
    return dict(parse_qsl(request.raw_query, keep_blank_values=True, errors="surrogateescape"))


def required(query: Mapping[str, str], name: str) -> str:
    """A parameter that is there and can be a path or pattern. Raises `BadRequest`."""
    value = query.get(name, "")
    if not value:
        raise BadRequest(f"{name} is required")
    return checked(value, name)


def checked(path: str, name: str = "path") -> str:
    """Raises `BadRequest` for what cannot be a path."""
    if "\0" in path:
        raise BadRequest(f"{name} holds a NUL character")
    return path


def shown(path: str) -> str:
    """A path as text that can be encoded; what is no UTF-8 in it is replaced."""
    return path if path.isascii() else path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def refusal(error: OSError, path: str | None = None) -> DaemonError:
    """What a client is told of a system error."""
    name = path if path is not None else error.filename
    text = error.strerror or str(error)
    message = f"{text}: {shown(str(name))}" if name is not None else text
    if error.errno == errno.ENOENT:
        return FileMissing(message)
    if error.errno in _DENIED:
        return FileAccessDenied(message)
    return Internal(message) if error.errno in _OURS else BadRequest(message)
