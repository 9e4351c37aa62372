"""Who may: the guards of public routes, and what handlers are given about a request."""

import hmac
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

from litestar.connection import ASGIConnection, Request
from litestar.handlers import BaseRouteHandler
from litestar.params import FromPath

from sandyard_api.api_keys.service import ApiKeys
from sandyard_api.errors import Forbidden, Unauthorized
from sandyard_api.jobs.wire import KeyGrant
from sandyard_api.origins import Origin
from sandyard_api.rates.service import Headers, RateLimits

SCOPE_ORIGIN = "sandyard.origin"
SCOPE_GRANT = "sandyard.grant"
PUBLIC = "public"
"""Handler option: no key needed."""

RATE = "rate"
"""Handler option: the bucket of its own in which its requests are counted, instead of `authenticated`."""
CREATES = "sandbox-create"
MOVES = "sandbox-lifecycle"
SCOPE_HEADERS = "sandyard.headers"
"""In the ASGI scope: headers that the answer gets, whatever it is."""

Guard = Callable[[ASGIConnection[Any, Any, Any, Any], BaseRouteHandler], Awaitable[None]]
AnyRequest = Request[Any, Any, Any]


def bearer_token(authorization: str | None) -> str:
    """The token of an Authorization header. Raises `Unauthorized`."""
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthorized
    return token.strip()


def key_guard(keys: ApiKeys, rates: RateLimits) -> Guard:
    """Lets requests with a valid API key in, and all to handlers marked `public`, as often as the rate limits say."""

    async def check(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        headers: Headers = connection.scope[SCOPE_HEADERS]  # type: ignore[literal-required]
        address = connection.client.host if connection.client else ""
        if handler.opt.get(PUBLIC):
            rates.count("anonymous", address, headers)
            return
        try:
            grant = await keys.check(bearer_token(connection.headers.get("authorization")))
        except Unauthorized:
            rates.count("failed-auth", address, headers)
            raise
        rates.count(bucket_of(handler), grant.key_id, headers)
        connection.scope[SCOPE_GRANT] = grant  # type: ignore[literal-required]  # our own key in the ASGI scope

    return check


def bucket_of(handler: BaseRouteHandler) -> str:
    """In which bucket requests with a key are counted."""
    bucket: str = handler.opt.get(RATE, "authenticated")
    return bucket


def token_guard(token: str) -> Guard:
    """Lets requests with exactly this bearer token in."""
    expected = token.encode()

    async def check(connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler) -> None:
        given = bearer_token(connection.headers.get("authorization"))
        if not hmac.compare_digest(given.encode(), expected):
            raise Unauthorized

    return check


def may(*permissions: str) -> Guard:
    """Lets keys with one of these permissions in."""

    async def check(connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler) -> None:
        if not set(permissions) & set(connection.scope[SCOPE_GRANT].permissions):  # type: ignore[literal-required]
            raise Forbidden("Access denied")

    return check


def provide_grant(request: AnyRequest) -> KeyGrant:
    """What the request's key stands for."""
    grant: KeyGrant = request.scope[SCOPE_GRANT]  # type: ignore[literal-required]
    return grant


def provide_origin(request: AnyRequest) -> Origin:
    """How the client reaches us."""
    origin: Origin = request.scope[SCOPE_ORIGIN]  # type: ignore[literal-required]
    return origin


def provide_item_id(item_ref: FromPath[str]) -> str:
    """The id, or the name, of a volume, secret, registry or warm pool, decoded as below."""
    return unquote(item_ref)


def provide_key(sandbox_ref: FromPath[str]) -> str:
    """The sandbox's id or name. Paths reach the router still encoded, so that a name may hold a slash."""
    return unquote(sandbox_ref)
