"""Errors as clients get them: one body for all, whoever found the error."""

import re
from http import HTTPStatus

import msgspec
import structlog
from litestar.exceptions import HTTPException
from litestar.response import Response
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from sandyard.clock import Clock
from sandyard_api.access import AnyRequest
from sandyard_api.errors import (
    STATUS,
    ApiError,
    BadRequest,
    Conflict,
    Forbidden,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    Unauthorized,
    Unavailable,
)

SOURCE = "DAYTONA_API"
UNEXPECTED = "An unexpected error occurred."

V2 = re.compile(r" (/api)?/v2(/|$)")
V2_HINT = ". Here is the API of the 0.x clients; clients of version 2 are not served"
CODE_OF = {
    STATUS[kind]: kind.code
    for kind in (BadRequest, Unauthorized, Forbidden, NotFound, MethodNotAllowed, Conflict, PayloadTooLarge)
}
"""Codes for the errors of the router itself."""

DATABASE_AWAY = (OperationalError, InterfaceError, PoolTimeout, ConnectionError)
LEFT = "client disconnected prematurely"
"""What the router raises, as an error of its own, for a request that ends before its body does."""
AWAY = "The database does not answer. Please try again."

log = structlog.get_logger()


class Problem(msgspec.Struct, rename="camel", kw_only=True):
    """The error body of the protocol. Clients match on `message`, `code` and `source`."""

    status_code: int
    message: str
    code: str
    source: str
    error: str
    path: str
    method: str
    timestamp: str


class Problems:
    """Turns exceptions into error bodies."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def body(self, error: Exception, *, method: str, path: str) -> tuple[int, bytes]:
        """Status and JSON body. What we did not foresee is logged here, and nothing of it told."""
        status, code, message = self._classify(error, method, path)
        if status is HTTPStatus.INTERNAL_SERVER_ERROR:
            log.error("unexpected_error", path=path, method=method, exc_info=error)
        elif status is HTTPStatus.SERVICE_UNAVAILABLE:
            log.warning("part_down", path=path, method=method, error=str(error))
        problem = Problem(
            status_code=status.value,
            message=message,
            code=code,
            source=SOURCE,
            error=status.phrase,
            path=path,
            method=method,
            timestamp=self._clock.now().isoformat().replace("+00:00", "Z"),
        )
        return status.value, msgspec.json.encode(problem)

    def handle(self, request: AnyRequest, error: Exception) -> Response[bytes]:
        """The same as an answer of the router."""
        status, body = self.body(error, method=request.method, path=request.scope["path"])
        return Response(body, status_code=status, media_type="application/json")

    def _classify(self, error: Exception, method: str, path: str) -> tuple[HTTPStatus, str, str]:
        if isinstance(error, ApiError):
            return STATUS[type(error)], error.code, str(error)
        if isinstance(error, HTTPException) and error.detail == LEFT:
            return HTTPStatus.BAD_REQUEST, BadRequest.code, "The request ended before its body"
        if isinstance(error, HTTPException) and error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
            status = HTTPStatus(error.status_code)
            return status, CODE_OF.get(status, ApiError.code), _detail(error, status, f"{method} {path}")
        if isinstance(error, DATABASE_AWAY):
            return HTTPStatus.SERVICE_UNAVAILABLE, Unavailable.code, AWAY
        return HTTPStatus.INTERNAL_SERVER_ERROR, ApiError.code, UNEXPECTED


def _detail(error: HTTPException, status: HTTPStatus, asked: str) -> str:
    """The router's words, made useful where it has none."""
    if status is HTTPStatus.NOT_FOUND:
        return f"Cannot {asked}{V2_HINT if V2.search(asked) else ''}"
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        return f"Cannot {asked}"
    return error.detail or status.phrase


def json_headers(body: bytes) -> list[tuple[bytes, bytes]]:
    """Headers of a JSON body, for answers beside the router."""
    return [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
