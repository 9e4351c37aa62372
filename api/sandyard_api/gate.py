"""The outermost ASGI function of the public API: hosts, CORS, paths and what is not implemented, before any router."""

from collections.abc import Sequence
from http import HTTPStatus

from sandyard_api.access import SCOPE_HEADERS, SCOPE_ORIGIN, bearer_token
from sandyard_api.api_keys.service import ApiKeys
from sandyard_api.asgi import App, Message, Receive, Scope, Send
from sandyard_api.coverage.absences import absence_of
from sandyard_api.coverage.matching import OperationTable
from sandyard_api.coverage.operations import OPERATIONS
from sandyard_api.errors import ApiError, NotFound, NotImplementedHere
from sandyard_api.image_registry.app import RegistryApp
from sandyard_api.origins import Origins
from sandyard_api.problems import Problems, json_headers
from sandyard_api.storage.app import StorageApp

API = "/api"
EVENTS_PATH = "/api/socket.io"
CORS_METHODS = b"GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS"
CORS_HEADERS = (
    b"Authorization, Content-Type, X-Daytona-Organization-ID, X-Daytona-Source, X-Daytona-SDK-Version, "
    b"X-Daytona-Preview-Token, X-Daytona-Skip-Last-Activity-Update, X-Daytona-CLI-Version, traceparent, tracestate, "
    b"baggage"
)
ALLOW_ANY_ORIGIN = (b"access-control-allow-origin", b"*")
"""Any page may ask: what counts is the key in the Authorization header, and no cookie is ever read."""


class Gate:
    """Lets requests through to the router or the event sockets."""

    def __init__(
        self,
        router: App,
        events: App,
        storage: StorageApp,
        registry: RegistryApp,
        *,
        origins: Origins,
        keys: ApiKeys,
        problems: Problems,
    ) -> None:
        self._router = router
        self._events = events
        self._storage = storage
        self._registry = registry
        self._origins = origins
        self._keys = keys
        self._problems = problems
        self._operations = OperationTable(OPERATIONS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await answer_lifespan(receive, send)
        elif scope["type"] == "websocket":
            await self._socket(scope, receive, send)
        else:
            await self._request(scope, receive, send)

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = encoded_path(scope)
        if path == API or path.startswith(f"{API}/"):
            if _is_preflight(scope):
                await _answer_preflight(scope, send)
                return
            send = _with_cors(send)
        try:
            origin = self._origins.of(scope)
            await self._refuse_unimplemented(scope, path)
        except ApiError as error:
            await self._refuse(error, scope, path, send)
            return
        if self._storage.serves(path):
            await self._storage(scope, receive, send, path=path, authority=self._origins.asked(scope).authority)
            return
        if self._registry.serves(path):
            await self._registry(scope, receive, send, path=path)
            return
        inner = self._events if path.startswith(f"{EVENTS_PATH}/") or path == EVENTS_PATH else self._router
        headers: list[tuple[bytes, bytes]] = []
        inner_scope = {**scope, "path": path, SCOPE_ORIGIN: origin, SCOPE_HEADERS: headers}
        await inner(inner_scope, receive, _with_headers(send, headers))

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = encoded_path(scope)
        try:
            origin = self._origins.of(scope)
            header = _header(scope, b"origin")
            if header:
                self._origins.check_origin_header(header, origin)
            if path.rstrip("/") != EVENTS_PATH:
                raise NotFound(f"Cannot GET {path}")
        except ApiError as error:
            await self._refuse(error, scope, path, send)
            return
        await self._events({**scope, SCOPE_ORIGIN: origin}, receive, send)

    async def _refuse_unimplemented(self, scope: Scope, path: str) -> None:
        """Raise for operations of the protocol that this version does not have; whoever asks must have a key."""
        if not path.startswith(f"{API}/"):
            return
        operation = self._operations.find(scope["method"], path.removeprefix(API))
        if operation is None or operation.is_implemented:
            return
        await self._keys.check(bearer_token(_header(scope, b"authorization")))
        absence = absence_of(operation.path)
        raise NotImplementedHere(
            f"{operation.id} ({operation.method} {API}{operation.path}) is not implemented by this version of Sandyard"
            + (f": {absence.reason}" if absence else "")
        )

    async def _refuse(self, error: ApiError, scope: Scope, path: str, send: Send) -> None:
        status, body = self._problems.body(error, method=scope.get("method", "GET"), path=path)
        await answer(scope, send, status, body)


async def answer(scope: Scope, send: Send, status: int, body: bytes) -> None:
    """A JSON answer to a request, or to a WebSocket handshake where the server can give one."""
    prefix = "http.response"
    if scope["type"] == "websocket":
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008, "reason": HTTPStatus(status).phrase})
            return
        prefix = "websocket.http.response"
    await send({"type": f"{prefix}.start", "status": status, "headers": json_headers(body)})
    await send({"type": f"{prefix}.body", "body": body})


def encoded_path(scope: Scope) -> str:
    """The path as it was sent, so that an encoded slash in a name is no separator."""
    raw: bytes | None = scope.get("raw_path")
    path = raw.split(b"?", 1)[0].decode("latin-1") if raw else str(scope["path"])
    return path or "/"


def _header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name), "")


def _is_preflight(scope: Scope) -> bool:
    return scope["method"] == "OPTIONS" and bool(_header(scope, b"access-control-request-method"))


async def _answer_preflight(scope: Scope, send: Send) -> None:
    asked = _header(scope, b"access-control-request-headers").encode("latin-1")
    headers = [
        ALLOW_ANY_ORIGIN,
        (b"access-control-allow-methods", CORS_METHODS),
        (b"access-control-allow-headers", asked or CORS_HEADERS),
        (b"access-control-max-age", b"600"),
        (b"vary", b"Access-Control-Request-Headers"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def _with_cors(send: Send) -> Send:
    """Opens answers to any page, and takes the content type off those without content, which confuses clients."""

    async def forward(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message["headers"])
            if (b"content-length", b"0") in headers:
                headers = [header for header in headers if header[0] != b"content-type"]
            message = {**message, "headers": [*headers, ALLOW_ANY_ORIGIN]}
        await send(message)

    return forward


def _with_headers(send: Send, headers: Sequence[tuple[bytes, bytes]]) -> Send:
    """Adds what came together while the request was looked at."""

    async def forward(message: Message) -> None:
        if headers and message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *headers]}
        await send(message)

    return forward


async def answer_lifespan(receive: Receive, send: Send) -> None:
    """Nothing starts with the server: who opened the control plane also closes it."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        else:
            await send({"type": "lifespan.shutdown.complete"})
            return
