"""Requests for a sandbox: who may, whether it runs, and then to its daemon, or to the logs that the proxy serves."""

from http import HTTPStatus
from urllib.parse import urlsplit

import msgspec

from sandyard_api.jobs.wire import Route
from sandyard_proxy.activity import Activity
from sandyard_proxy.answers import AnswerOnce
from sandyard_proxy.asgi import Headers, Receive, Scope, Send, end_to_end, header, raw_path, text_header
from sandyard_proxy.auth import Credential, Entry, cookie_for, forwarded_headers, let_in
from sandyard_proxy.connection import ResponseHead
from sandyard_proxy.cors import answer_preflight, is_preflight
from sandyard_proxy.destinations import Destination, Mount, forwarded_query
from sandyard_proxy.doors import Doors
from sandyard_proxy.errors import DoorUnreachable, NotDelivered, NotFound, NotStarted, Paused
from sandyard_proxy.follow.routes import FollowRoutes, log_of, read_request, wants_follow
from sandyard_proxy.forward import OWN_ERROR, Outgoing, forward, refuse_stale
from sandyard_proxy.forwarded import SCHEMES, origin_headers, without_origin
from sandyard_proxy.pages import warn_first
from sandyard_proxy.replay import Replay
from sandyard_proxy.route_table import RouteTable
from sandyard_proxy.terminal import is_terminal, serve_terminal
from sandyard_proxy.tunnel import tunnel

RUNNING = frozenset({"started", "resizing", "snapshotting"})
"""In the last two a sandbox may be stopped as well; its door tells."""
HELD_STILL = frozenset({"pausing", "paused", "resuming"})
GONE = frozenset({"destroyed", "destroying"})
SKIP_ACTIVITY = b"x-daytona-skip-last-activity-update"
SHIELDED = frozenset((b"content-security-policy", b"x-content-type-options"))
PATH_POLICY = b"sandbox allow-scripts allow-forms allow-modals allow-popups allow-downloads"
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0"})  # noqa: S104  compared, not bound


class SandboxRoutes:
    """Serves everything that is mounted for a sandbox."""

    def __init__(
        self, routes: RouteTable, doors: Doors, follow: FollowRoutes, activity: Activity, *, warns: bool
    ) -> None:
        """`warns`: browsers see a warning before a preview."""
        self._routes = routes
        self._doors = doors
        self._follow = follow
        self._activity = activity
        self._warns = warns

    async def serve(self, scope: Scope, receive: Receive, send: AnswerOnce, destination: Destination) -> None:
        """Answer one request. Raises `ProxyError` before anything was answered, and `ClientGone`."""
        if is_preflight(scope):
            await answer_preflight(scope, send)
            return
        entry = await let_in(scope, destination, self._routes)
        if destination.is_internal:
            raise NotFound("not found: no such route")
        if self._warns and await warn_first(scope, send, destination):
            return
        route = await self._running(entry.route, destination)
        counts = (text_header(scope["headers"], SKIP_ACTIVITY) or "").lower() != "true"
        with self._activity.using(route.sandbox_id, counts=counts):
            try:
                await self._deliver_again(scope, Replay(receive), send, destination, Entry(route, entry.credential))
            except DoorUnreachable:
                # It may have been stopped since the route was remembered; that is the better answer then.
                await self._running(msgspec.structs.replace(route, state="unreachable"), destination)
                self._routes.forget(route.sandbox_id)
                raise

    async def _deliver_again(
        self, scope: Scope, receive: Replay, send: AnswerOnce, destination: Destination, entry: Entry
    ) -> None:
        """Deliver; once more by a fresh route when the remembered one led to no daemon."""
        try:
            await self._deliver(scope, receive, send, destination, entry)
        except NotDelivered:
            if send.begun or not receive.rewind():
                raise
            route = await self._running(msgspec.structs.replace(entry.route, state="unreachable"), destination)
            await self._deliver(scope, receive, send, destination, Entry(route, entry.credential))

    async def _deliver(
        self, scope: Scope, receive: Receive, send: Send, destination: Destination, entry: Entry
    ) -> None:
        log = log_of(destination)
        if log is not None and wants_follow(scope):
            await self._follow.serve(scope, receive, send, entry.route, read_request(scope, *log))
        elif is_terminal(destination):
            door = self._doors.get(entry.route)
            await serve_terminal(
                scope,
                receive,
                send,
                path=raw_path(scope),
                lend=door.lend,
                door=door.credentials,
                cookies=_cookies(scope, entry),
            )
        else:
            await self._forward(scope, receive, send, destination, entry)

    async def _running(self, route: Route, destination: Destination) -> Route:
        """The route, if its sandbox runs; what is remembered may be a moment old, so a refusal is asked for twice."""
        if route.state in RUNNING:
            return route
        current = await self._routes.route(route.sandbox_id, fresh=True)
        if current is None or current.state in GONE:
            raise NotFound.sandbox(destination.key if destination.mount is not Mount.TOKEN else route.sandbox_id)
        if current.state in HELD_STILL:
            raise Paused
        if current.state not in RUNNING:
            raise NotStarted
        return current

    async def _forward(
        self, scope: Scope, receive: Receive, send: Send, destination: Destination, entry: Entry
    ) -> None:
        door = self._doors.get(entry.route)
        headers = forwarded_headers(without_origin(end_to_end(scope["headers"])), entry, destination)
        headers = [pair for pair in headers if pair[0] != b"expect"]  # the server has answered it already
        headers += origin_headers(scope, trust=False) + door.credentials
        target = destination.path + forwarded_query(scope)
        outgoing = Outgoing(scope.get("method", "GET"), target, headers)
        if scope["type"] == "websocket":
            await tunnel(scope, receive, send, door.lend, outgoing)
            return

        def rewrite(head: ResponseHead) -> Headers:
            refuse_stale(head)
            return _rewritten(scope, destination, entry, head)

        await forward(receive, send, door.lend, outgoing, rewrite)


def _rewritten(scope: Scope, destination: Destination, entry: Entry, head: ResponseHead) -> Headers:
    """The answer's headers as the client shall see them. Raises `DoorUnreachable` for a port where nobody listens."""
    headers = end_to_end(head.headers)
    if header(headers, OWN_ERROR) is not None:
        headers = [pair for pair in headers if pair[0] != OWN_ERROR]
        if not destination.is_toolbox and head.status == HTTPStatus.BAD_GATEWAY:
            raise DoorUnreachable(f"bad gateway: nothing in the sandbox answers on port {destination.port}")
    headers = [(key, _location(scope, destination, value) if key == b"location" else value) for key, value in headers]
    if destination.is_toolbox:
        # Whatever a sandbox makes us deliver here shares its origin with the dashboard: it must not run.
        headers = _shielded(headers, b"sandbox")
    elif destination.mount is Mount.PATH:
        # Its scripts may run, but as a page of nobody's origin, and without cookies on ours.
        headers = _shielded([pair for pair in headers if pair[0] != b"set-cookie"], PATH_POLICY)
    else:
        headers += _cookies(scope, entry)
    return headers


def _shielded(headers: Headers, policy: bytes) -> Headers:
    kept = [pair for pair in headers if pair[0] not in SHIELDED]
    return [*kept, (b"content-security-policy", policy), (b"x-content-type-options", b"nosniff")]


def _cookies(scope: Scope, entry: Entry) -> Headers:
    """For a browser that came with the token in its address: what lets in the page's own requests."""
    if entry.credential is not Credential.TOKEN_QUERY or scope.get("method") != "GET":
        return []
    secure = SCHEMES[scope.get("scheme", "http")] == "https"
    return [(b"set-cookie", cookie_for(entry, secure=secure))]


def _location(scope: Scope, destination: Destination, value: bytes) -> bytes:
    """Where a redirect leads from outside the sandbox."""
    if value.startswith(b"/") and not value.startswith(b"//"):
        return destination.prefix + value
    parts = urlsplit(value.decode("latin-1"))
    if destination.is_toolbox or parts.hostname not in LOOPBACK or parts.port != destination.port:
        return value
    host = text_header(scope["headers"], b"host") or ""
    scheme = SCHEMES[scope.get("scheme", "http")]
    path = destination.prefix.decode("latin-1") + (parts.path or "/")
    return parts._replace(scheme=scheme, netloc=host, path=path).geturl().encode("latin-1")
