"""What a request is for, told from its host and path alone."""

import posixpath
import re
from enum import Enum
from urllib.parse import parse_qsl, unquote, unquote_to_bytes

import msgspec

from sandyard.hosts import HostRules, host_name
from sandyard_proxy.asgi import Scope, header, raw_path, text_header
from sandyard_proxy.errors import ForeignHost

DAEMON_PORT = 2280
PRIVATE_PORTS = frozenset({DAEMON_PORT, 22222, 33333})
"""Ports that stay private in public sandboxes: the daemon, the web terminal, recordings."""
KEY_PARAMETER = "DAYTONA_SANDBOX_AUTH_KEY"
TOKEN_HEADER = b"x-daytona-preview-token"

_PREVIEW_HOST = re.compile(r"(\d{1,5})-([^.]+)\.(.+)")
_TOOLBOX = re.compile(rb"(/toolbox/([^/]+))(/.*)?", re.DOTALL)
_OLD_TOOLBOX = re.compile(rb"(/api/toolbox/([^/]+)/toolbox)(/.*)?", re.DOTALL)
_PREVIEW_PATH = re.compile(rb"(/preview/([^/]+)/(\d{1,5}))(/.*)?", re.DOTALL)
_CONTROL_PLANE = re.compile(rb"/(?:api|_sandyard|dashboard)(?:/.*)?|/", re.DOTALL)


class Mount(Enum):
    """Where a sandbox is mounted in our address space."""

    TOOLBOX = "toolbox"  # /toolbox/<sandbox>/..., /api/toolbox/<sandbox>/toolbox/...
    TOKEN = "token"  # noqa: S105  /process/... on the plain origin; the preview token names the sandbox
    PREVIEW = "preview"  # <port>-<sandbox>.<domain>
    PATH = "path"  # /preview/<sandbox>/<port>/..., a preview for clients that cannot resolve its host


PREVIEWS = frozenset({Mount.PREVIEW, Mount.PATH})


class Destination(msgspec.Struct, frozen=True):
    """A request that is for a sandbox."""

    mount: Mount
    key: str
    """Sandbox id or name, in a preview also a signed preview's token; for `Mount.TOKEN` the preview token."""
    path: bytes
    """What the daemon is asked for, percent-encoding as the client sent it, without the query."""
    port: int = DAEMON_PORT
    """Preview port; `DAEMON_PORT` is the daemon itself."""
    prefix: bytes = b""
    """What a redirect of the daemon must be preceded by for the client."""

    @property
    def is_toolbox(self) -> bool:
        """Whether the daemon itself is asked, not a server of the user."""
        return self.port == DAEMON_PORT

    @property
    def is_internal(self) -> bool:
        """Whether the path is one of the daemon's that only runner and proxy may use, however it is written."""
        plain = posixpath.normpath("/" + unquote_to_bytes(self.path).decode("latin-1").lstrip("/"))
        return self.is_toolbox and plain.lower().split("/")[1] == "_daemon"


def check_host(scope: Scope, rules: HostRules) -> None:
    """Raises `ForeignHost`."""
    host = text_header(scope["headers"], b"host")
    server = scope.get("server")
    if not rules.accepts(host, server[0] if server else None):
        raise ForeignHost(host or "")


def find_destination(scope: Scope) -> Destination | None:
    """The sandbox that a request is for; `None` when it is for the control plane or the proxy itself."""
    path = raw_path(scope)
    match = _PREVIEW_HOST.fullmatch(host_name(text_header(scope["headers"], b"host") or ""))
    if match is not None and 0 < int(match[1]) < 1 << 16:
        return _preview(Mount.PREVIEW, match[2], int(match[1]), path)
    place = _PREVIEW_PATH.fullmatch(path)
    if place is not None and 0 < int(place[3]) < 1 << 16:
        return _preview(Mount.PATH, unquote(place[2].decode("latin-1")), int(place[3]), place[4] or b"/", place[1])
    toolbox = _TOOLBOX.fullmatch(path) or _OLD_TOOLBOX.fullmatch(path)
    if toolbox is not None:
        key = unquote(toolbox[2].decode("latin-1"))
        return Destination(Mount.TOOLBOX, key, toolbox[3] or b"/", prefix=toolbox[1])
    token = offered_token(scope)
    if token is None or _CONTROL_PLANE.fullmatch(path):
        return None
    return Destination(Mount.TOKEN, token, path)


def _preview(mount: Mount, key: str, port: int, path: bytes, prefix: bytes = b"") -> Destination:
    target = path if port == DAEMON_PORT else b"/proxy/%d" % port + path
    return Destination(mount, key, target, port, prefix)


def offered_token(scope: Scope) -> str | None:
    """The preview token of a request, from its header or else its query."""
    value = header(scope["headers"], TOKEN_HEADER)
    if value is not None:
        return value.decode("latin-1").strip()
    return query_value(scope, KEY_PARAMETER)


def query_value(scope: Scope, name: str) -> str | None:
    """The first value of a query parameter; `None` when it is not there."""
    query: bytes = scope.get("query_string") or b""
    if name.encode() not in query:
        return None
    for key, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if key == name:
            return value
    return None


def forwarded_query(scope: Scope) -> bytes:
    """The query without our key, everything else as the client wrote it; with its question mark unless empty."""
    query: bytes = scope.get("query_string") or b""
    if KEY_PARAMETER.encode() in query:
        query = b"&".join(part for part in query.split(b"&") if not part.startswith(KEY_PARAMETER.encode() + b"="))
    return b"?" + query if query else b""
