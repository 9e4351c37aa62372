"""One span for each request of the toolbox, from its head to the end of its answer.

*Source:* W3C Trace Context, OpenTelemetry's semantic conventions for HTTP servers. Of a query nothing is told: it may
hold what a preview's server takes for a password.
"""

import asyncio
import os
import re
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import NamedTuple

from sandyard_daemon.http.messages import Answer, Handler, Request, StreamResponse, Switched

MAX_WAITING = 2048
"""Spans that wait to be sent; what comes meanwhile is counted and dropped."""
MAX_BATCH = 512
"""Spans in one post; so many are sent without waiting for more."""

_INTERNAL = "/_daemon/"
_MAX_TEXT = 512
"""Characters of what a client may make as long as it likes."""
_TRACE_PARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 1
_CLIENT_GONE = "client_gone"
_SWITCHING_PROTOCOLS = 101


class Parent(NamedTuple):
    """Who asked, as its `traceparent` and `tracestate` say."""

    trace_id: str
    span_id: str
    is_sampled: bool
    state: str


class Span(NamedTuple):
    """One request that is over. Times in nanoseconds since the epoch."""

    trace_id: str
    span_id: str
    parent: Parent | None
    name: str
    started: int
    ended: int
    attributes: dict[str, str | int]
    is_error: bool


class SpanQueue:
    """What waits to be sent: bounded, and never waited for by a request."""

    def __init__(self) -> None:
        self.dropped = 0
        """Spans that found no room."""
        self._spans: deque[Span] = deque()
        self._arrived = asyncio.Event()
        self._is_batch = asyncio.Event()

    def __len__(self) -> int:
        return len(self._spans)

    def add(self, span: Span) -> None:
        """Take one, or count it as dropped."""
        if len(self._spans) >= MAX_WAITING:
            self.dropped += 1
            return
        self._spans.append(span)
        self._arrived.set()
        if len(self._spans) >= MAX_BATCH:
            self._is_batch.set()

    async def batch(self, delay_seconds: float) -> list[Span]:
        """The next spans: as soon as there are many, or `delay_seconds` after the first."""
        await self._arrived.wait()
        try:
            async with asyncio.timeout(delay_seconds):
                await self._is_batch.wait()
        except TimeoutError:
            pass
        return self.take()

    def take(self) -> list[Span]:
        """At the most `MAX_BATCH`, the oldest first."""
        taken = [self._spans.popleft() for _ in range(min(MAX_BATCH, len(self._spans)))]
        if not self._spans:
            self._arrived.clear()
        if len(self._spans) < MAX_BATCH:
            self._is_batch.clear()
        return taken


class Tracer:
    """Makes a span of each request that passes, unless who asked does not record the trace."""

    def __init__(self, queue: SpanQueue) -> None:
        self._queue = queue

    async def trace(self, request: Request, answer: Handler) -> Answer:
        """`answer(request)`, timed. Its errors pass."""
        parent = parent_of(request)
        if request.raw_path.startswith(_INTERNAL) or (parent is not None and not parent.is_sampled):
            return await answer(request)
        running = _Running(self._queue, request, parent)
        try:
            given = await answer(request)
        except BaseException as error:
            running.end(None, error)
            raise
        if isinstance(given, StreamResponse):
            return given._replace(chunks=_Watched(given, running))
        running.end(_SWITCHING_PROTOCOLS if isinstance(given, Switched) else given.status)
        return given


def parent_of(request: Request) -> Parent | None:
    """`None` where none is told, or not in a valid form: the request then begins a trace."""
    told = [value for name, value in request.headers if name == b"traceparent"]
    match = _TRACE_PARENT.fullmatch(told[0].decode("latin-1").strip()) if len(told) == 1 else None
    if match is None or (match[1] == "00" and match[5] is not None):
        return None
    state = ",".join(value.decode("latin-1") for name, value in request.headers if name == b"tracestate")
    is_sampled = bool(int(match[4], 16) & _SAMPLED)
    return Parent(match[2], match[3], is_sampled, state if len(state) <= _MAX_TEXT else "")


class _Running:
    """A request that is not over."""

    def __init__(self, queue: SpanQueue, request: Request, parent: Parent | None) -> None:
        self._queue: SpanQueue | None = queue
        self._parent = parent
        self._started = time.time_ns()
        self.request = request

    def end(self, status: int | None, error: BaseException | None = None) -> None:
        """The answer is over; may be repeated. `error` is what cut it, `status` `None` where it came to none."""
        queue, self._queue = self._queue, None
        if queue is None:
            return
        if self.request.is_taken_over:
            status, error = _SWITCHING_PROTOCOLS, None  # its client's leaving is how such a connection ends
        kind = _kind(status, error)
        trace_id = os.urandom(16).hex() if self._parent is None else self._parent.trace_id
        method = _method(self.request)
        queue.add(
            Span(
                trace_id,
                os.urandom(8).hex(),
                self._parent,
                f"{'HTTP' if method == '_OTHER' else method} {self.request.route}".strip(),
                self._started,
                time.time_ns(),
                _attributes(self.request, method, status, kind),
                kind is not None,
            )
        )


class _Watched:
    """The chunks of an answer; the span ends with them."""

    def __init__(self, answer: StreamResponse, running: _Running) -> None:
        self._chunks = answer.chunks
        self._status = answer.status
        self._running = running

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._chunks)
        except StopAsyncIteration:
            self._running.end(self._status)
            raise
        except BaseException as error:
            self._running.end(self._status, error)
            raise

    async def aclose(self) -> None:
        """The connection wants no more: its client went, or asked for the head alone."""
        is_whole = self._running.request.method == "HEAD"
        self._running.end(self._status, None if is_whole else ConnectionResetError())
        close = getattr(self._chunks, "aclose", None)
        if close is not None:
            await close()


def _kind(status: int | None, error: BaseException | None) -> str | None:
    """`error.type`, `None` for what went well or is the client's own fault."""
    if isinstance(error, asyncio.CancelledError | ConnectionError):
        return _CLIENT_GONE
    if error is not None:
        return type(error).__name__
    return str(status) if status is not None and status >= 500 else None


_METHODS = frozenset(("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"))


def _method(request: Request) -> str:
    return request.method if request.method in _METHODS else "_OTHER"


def _attributes(request: Request, method: str, status: int | None, kind: str | None) -> dict[str, str | int]:
    told: dict[str, str | int | None] = {
        "http.request.method": method,
        "http.request.method_original": request.method[:_MAX_TEXT] if method == "_OTHER" else None,
        "http.response.status_code": status,
        "http.route": request.route or None,
        "url.path": request.raw_path[:_MAX_TEXT],
        "url.scheme": "http",
        "network.protocol.name": "http",
        "network.protocol.version": "1.1",
        "user_agent.original": (request.header("user-agent") or "")[:_MAX_TEXT] or None,
        "error.type": kind,
    }
    return {name: value for name, value in told.items() if value is not None}
