"""Requests and responses as handlers see them."""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qsl, unquote

from sandyard_daemon.errors import BodyTooLarge, InvalidBody
from sandyard_daemon.wire.versions import Caller

MAX_JSON_BODY = 16 << 20
"""Bytes."""

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
"""An escape that means nothing without the one beside it."""

Headers = list[tuple[bytes, bytes]]


class Body(Protocol):
    """What a connection offers a request for reading what follows the head."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises `ConnectionError` when the client went away or stalled."""

    def take_over(self) -> "Tunnel":
        """The raw connection after the head, for a protocol switch; no response is written by the server then."""


class Tunnel(Protocol):
    """A connection that left HTTP."""

    async def read(self) -> bytes:
        """The next bytes; empty at the end."""

    async def write(self, data: bytes) -> None:
        """Send, waiting while the other side is slow."""

    def close(self) -> None:
        """End it when what was written is sent; may be repeated."""

    def abort(self) -> None:
        """Cut it at once; may be repeated."""


class Request:
    """One request. `raw_path` is as sent, without the query; `segments` are its percent-decoded parts."""

    def __init__(self, method: str, target: str, headers: Headers, body: Body) -> None:
        self.method = method
        self.raw_path, _, self.raw_query = target.partition("?")
        self.headers = headers
        self.parameters: list[str] = []
        self.route = ""
        """The path's form, like `/process/session/{sessionId}`; empty until one was found."""
        self.is_taken_over = False
        """Whether the connection left HTTP for this request."""
        self._body = body

    @property
    def segments(self) -> list[str]:
        """The path's parts, an encoded slash staying inside its part; a trailing slash changes nothing."""
        return [unquote(part) for part in self.raw_path.strip("/").split("/")]

    @property
    def query(self) -> Mapping[str, str]:
        """The query; of a repeated key the last value."""
        return dict(parse_qsl(self.raw_query, keep_blank_values=True))

    @property
    def caller(self) -> Caller:
        """Who asks, as the SDK-version rules see it."""
        return Caller.of(self.header)

    def header(self, name: str) -> str | None:
        """A header's first value."""
        wanted = name.lower().encode()
        for key, value in self.headers:
            if key == wanted:
                return value.decode("latin-1")
        return None

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives."""
        return self._body.chunks()

    def take_over(self) -> Tunnel:
        """The raw connection, for a protocol switch."""
        tunnel = self._body.take_over()
        self.is_taken_over = True
        return tunnel

    async def json_object(self, *, optional: bool = False) -> dict[str, Any]:
        """The body as a JSON object with lower-cased keys. With `optional` an empty body is `{}`.

        Raises `InvalidBody`, `BodyTooLarge` (before more than `MAX_JSON_BODY` bytes were kept).
        """
        announced = self.header("content-length")
        if announced is not None and announced.isdigit() and int(announced) > MAX_JSON_BODY:
            raise _too_large()
        body = bytearray()
        async for chunk in self.chunks():
            body += chunk
            if len(body) > MAX_JSON_BODY:
                raise _too_large()
        if optional and not body.strip():
            return {}
        try:
            value = _parse(body)
        except (ValueError, RecursionError) as error:
            raise InvalidBody(f"the body is not valid JSON: {error}") from error
        if not isinstance(value, dict):
            raise InvalidBody("the body must be a JSON object")
        return {key.lower(): item for key, item in value.items()}


class Response(NamedTuple):
    """An answer whose body is at hand."""

    status: int
    body: bytes = b""
    content_type: str | None = None
    headers: tuple[tuple[str, str], ...] = ()


class StreamResponse(NamedTuple):
    """An answer whose body is made while it is sent, chunked unless `headers` hold a length."""

    status: int
    chunks: AsyncIterator[bytes]
    content_type: str | None = None
    headers: tuple[tuple[str, str], ...] = ()


class Switched(NamedTuple):
    """The handler took the connection over and is done with it."""


Answer = Response | StreamResponse | Switched
Handler = Callable[[Request], Awaitable[Answer]]


def json_response(status: int, value: Any) -> Response:
    """`value` as JSON."""
    return Response(status, json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"), "application/json")


def _parse(body: bytearray) -> Any:
    """JSON whose strings can all be encoded. Raises `ValueError`, `RecursionError`."""
    text = body.decode("utf-8-sig")  # `json.loads` of bytes would let halves of characters through
    value = json.loads(text)
    if _SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError("a string holds half a surrogate pair") from error
    return value


def _too_large() -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than {MAX_JSON_BODY} bytes")
