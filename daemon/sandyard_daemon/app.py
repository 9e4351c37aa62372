"""The daemon's application: which handler each operation has, the door's secret, and what errors become."""

import asyncio
from _operator import _compare_digest  # what `hmac` itself uses; `hmac` would load OpenSSL for it
from typing import TYPE_CHECKING, Protocol

from sandyard_daemon.areas import Areas
from sandyard_daemon.diary import report
from sandyard_daemon.errors import BadRequest, DaemonError, Internal, NotBuilt, Unauthorized, envelope
from sandyard_daemon.http.messages import Answer, Handler, Request, Response, json_response
from sandyard_daemon.http.routing import REST, Router
from sandyard_daemon.wire import DOOR_HEADER, OWN_ERROR_HEADER
from sandyard_daemon.wire.operations import OPERATIONS
from sandyard_daemon.wire.versions import Caller

if TYPE_CHECKING:
    from sandyard_daemon.telemetry.spans import Tracer

_OLD_ERROR_KEYS = ("statusCode", "message", "code", "timestamp", "path", "method")
"""What the error model of a strictly decoding release knows."""


class Tracing(Protocol):
    """Whether requests are traced, now."""

    @property
    def tracer(self) -> "Tracer | None":
        """`None` while they are not, which is nearly always: that costs one look."""


class Application:
    """Dispatches requests of the door."""

    def __init__(
        self,
        secret: bytes,
        operations: dict[str, Handler],
        areas: Areas,
        paths: dict[str, Handler],
        *,
        ports: Handler,
        tracing: Tracing,
    ) -> None:
        """`operations` are at hand, by operation id; the others are looked for in the `areas`."""
        self._secret = secret
        self._tracing = tracing
        self._router = Router()
        for operation in OPERATIONS:
            handler: Handler | None = None
            if operation.implemented:
                handler = operations.get(operation.operation_id) or areas.handler(operation)
            self._router.add(operation.method, operation.path, handler or _not_built(operation.operation_id))
        for path, handler in paths.items():
            self._router.add("GET", path, handler)
        self._router.add("*", f"/proxy/{{port}}/{REST}", ports)
        self._router.add("*", "/proxy/{port}", ports)

    async def __call__(self, request: Request) -> Answer:
        """Answer one request; every error becomes the envelope."""
        tracer = self._tracing.tracer
        return await (self._answer(request) if tracer is None else tracer.trace(request, self._answer))

    async def _answer(self, request: Request) -> Answer:
        try:
            self._check_secret(request)
            handler = self._route(request)
            return await handler(request)
        except DaemonError as error:
            return _error_response(request, error)
        except (asyncio.CancelledError, ConnectionError, TimeoutError):
            raise
        except Exception as error:  # a broken handler must not take the others along
            report("handler_failed", method=request.method, path=request.raw_path, error=repr(error))
            return _error_response(request, Internal(f"{type(error).__name__} in the sandbox's daemon"))

    def _check_secret(self, request: Request) -> None:
        if not _compare_digest((request.header(DOOR_HEADER) or "").encode("latin-1"), self._secret):
            raise Unauthorized("the door's secret is missing or wrong")

    def _route(self, request: Request) -> Handler:
        if not request.raw_path.startswith("/"):
            raise BadRequest("the request target must be a path")
        handler, request.parameters, request.route = self._router.find(request.method, request.segments)
        return handler


def _not_built(operation_id: str) -> Handler:
    async def refuse(request: Request) -> Answer:
        raise NotBuilt(f"the operation {operation_id} is not implemented by Sandyard yet")

    return refuse


def _error_response(request: Request, error: DaemonError) -> Response:
    body = envelope(error, method=request.method, path=request.raw_path)
    if Caller.of(request.header).decodes_strictly:
        body = {key: value for key, value in body.items() if key in _OLD_ERROR_KEYS}
    return json_response(error.status, body)._replace(headers=((OWN_ERROR_HEADER, error.code),))
