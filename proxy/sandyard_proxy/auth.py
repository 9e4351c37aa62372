"""Who may reach a sandbox, and which of the credentials are not for its eyes.

Order, after control-plane.md 22.2: a signed preview opens itself, a public sandbox asks nobody; then API key, preview
token (header, query), cookie.
A signed file URL opens its one file to a request that has nothing else.
"""

import hashlib
import hmac
import time
from datetime import datetime
from enum import Enum

import msgspec

from sandyard.hosts import same_origin
from sandyard_api.jobs.wire import Route
from sandyard_proxy.asgi import Headers, Scope, text_header
from sandyard_proxy.destinations import (
    KEY_PARAMETER,
    PREVIEWS,
    PRIVATE_PORTS,
    TOKEN_HEADER,
    Destination,
    Mount,
    offered_token,
    query_value,
)
from sandyard_proxy.errors import BadSignature, NotFound, Unauthenticated
from sandyard_proxy.route_table import RouteTable
from sandyard_proxy.signed_urls import is_signed, read_signed_url

COOKIE_PREFIX = "daytona-sandbox-auth-"
COOKIE_SECONDS = 3600


class Credential(Enum):
    """What let a request in."""

    PUBLIC = "public"
    API_KEY = "api key"
    TOKEN_HEADER = "token header"  # noqa: S105  a name, not a token
    TOKEN_QUERY = "token query"  # noqa: S105  likewise
    COOKIE = "cookie"
    SIGNED = "signed preview"
    SIGNATURE = "signature"


class Entry(msgspec.Struct, frozen=True):
    """A request that was let in."""

    route: Route
    credential: Credential


def bearer(scope: Scope) -> str | None:
    """The API key of a request."""
    value = text_header(scope["headers"], b"authorization")
    if value is None or not value.lower().startswith("bearer "):
        return None
    return value[7:].strip() or None


async def let_in(scope: Scope, destination: Destination, routes: RouteTable) -> Entry:
    """Find the sandbox and check the caller. Raises `Unauthenticated`, `NotFound`, `BadSignature`, `ControlPlaneAway`.

    A stranger learns nothing of which sandboxes exist: only a valid API key gets 404.
    """
    route = await routes.route(destination.key)
    if route is not None and _is_no_name(route, destination, routes.now()):
        route = None
    if route is not None and route.signed_port is not None:
        return Entry(route, Credential.SIGNED)
    if route is not None and _is_public(route, destination):
        return Entry(route, Credential.PUBLIC)
    key = bearer(scope)
    if await _is_key_for(route, destination, key, routes) and route is not None:
        return Entry(route, Credential.API_KEY)
    if is_signed(scope, destination) and offered_token(scope) is None:
        return Entry(await _route_of_signed(scope, destination, routes), Credential.SIGNATURE)
    credential = None if route is None else _credential(scope, destination, route)
    if route is None or credential is None:
        raise _refusal(scope, key)
    return Entry(route, credential)


def _is_no_name(route: Route, destination: Destination, now: datetime) -> bool:
    """Whether what the request names its sandbox by is a token: a credential, but for a signed preview's own host."""
    if route.signed_port is not None:
        return not _opens(route, destination, now)
    return destination.mount is not Mount.TOKEN and _equal(destination.key, route.preview_token)


async def _is_key_for(route: Route | None, destination: Destination, key: str | None, routes: RouteTable) -> bool:
    """Whether the request's API key may enter. Raises `NotFound` for a valid key that has no such sandbox."""
    grant = None if key is None or destination.mount is Mount.TOKEN else await routes.grant(key)
    if grant is None:
        return False
    if route is None or route.organization_id != grant.organization_id:
        raise NotFound.sandbox(destination.key)
    return True


def forwarded_headers(headers: Headers, entry: Entry, destination: Destination) -> Headers:
    """Without the credentials that were ours to check; an app behind a preview keeps those that were meant for it."""
    drop = {TOKEN_HEADER, b"x-sandyard-door"}
    if destination.is_toolbox or entry.credential is Credential.API_KEY:
        drop.add(b"authorization")
    name = _cookie_name(entry.route)
    kept: Headers = []
    for key, value in headers:
        if key == b"cookie" and name in value:
            value = b"; ".join(part for part in value.split(b"; ") if not part.startswith(name + b"="))
        if key not in drop and (key != b"cookie" or value):
            kept.append((key, value))
    return kept


def cookie_for(entry: Entry, *, secure: bool) -> bytes:
    """A Set-Cookie value that opens this preview host for an hour or until the sandbox's next start."""
    expires = int(time.time()) + COOKIE_SECONDS
    value = f"{expires}.{_signature(entry.route, expires)}".encode()
    name = _cookie_name(entry.route)
    attributes = b"; Path=/; HttpOnly; SameSite=Lax; Max-Age=%d" % COOKIE_SECONDS
    return name + b"=" + value + attributes + (b"; Secure" if secure else b"")


async def _route_of_signed(scope: Scope, destination: Destination, routes: RouteTable) -> Route:
    """The route that a signed URL opens. Raises `BadSignature`, for an unknown sandbox too, and `ControlPlaneAway`."""
    url = read_signed_url(scope, destination)
    if url is None:
        raise BadSignature
    for fresh in (False, True):  # the key may have been made after the route was remembered
        route = await routes.route(destination.key, fresh=fresh)
        if route is not None and (route.signed_port or _equal(destination.key, route.preview_token)):
            raise BadSignature  # a token is a credential, not a name
        if route is not None and url.holds(route.signing_key, routes.now().timestamp()):
            return route
    raise BadSignature


def _is_public(route: Route, destination: Destination) -> bool:
    return route.public and destination.mount in PREVIEWS and destination.port not in PRIVATE_PORTS


def _opens(route: Route, destination: Destination, now: datetime) -> bool:
    """Whether the signed preview that the request names is for this port, and not over yet."""
    is_its_port = destination.mount in PREVIEWS and destination.port == route.signed_port
    return is_its_port and route.signed_until is not None and now < route.signed_until


def _credential(scope: Scope, destination: Destination, route: Route) -> Credential | None:
    header = text_header(scope["headers"], TOKEN_HEADER)
    if header is not None and _equal(header, route.preview_token):
        return Credential.TOKEN_HEADER
    parameter = query_value(scope, KEY_PARAMETER)
    if parameter is not None and _equal(parameter, route.preview_token):
        return Credential.TOKEN_QUERY
    if destination.mount is Mount.PREVIEW and _has_cookie(scope, route):
        return Credential.COOKIE
    return None


def _has_cookie(scope: Scope, route: Route) -> bool:
    headers = scope["headers"]
    # Browsers send cookies by themselves, also for another site's page: only the preview's own pages may use one.
    if not same_origin(text_header(headers, b"origin"), text_header(headers, b"host")):
        return False
    name = _cookie_name(route).decode()
    for part in (text_header(headers, b"cookie") or "").split("; "):
        key, _, value = part.partition("=")
        expires, _, signature = value.partition(".")
        if key == name and expires.isascii() and expires.isdigit() and int(expires) > time.time():
            return _equal(signature, _signature(route, int(expires)))
    return False


def _signature(route: Route, expires: int) -> str:
    text = f"{route.sandbox_id}:{expires}".encode()
    return hmac.new(route.preview_token.encode(), text, hashlib.sha256).hexdigest()


def _cookie_name(route: Route) -> bytes:
    return f"{COOKIE_PREFIX}{route.sandbox_id}".encode()


def _equal(offered: str, expected: str) -> bool:
    return bool(expected) and hmac.compare_digest(offered.encode(), expected.encode())


def _refusal(scope: Scope, key: str | None) -> Unauthenticated:
    if key is None and offered_token(scope) is None:
        return Unauthenticated("unauthorized: missing authentication: send an API key or the sandbox's preview token")
    return Unauthenticated("unauthorized: authentication failed: the key or token is not valid")
