"""The protocols that `sandyard.serving` speaks: uvicorn's, with bounds, and with errors that clients can read."""

import asyncio
import json
from contextlib import suppress
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from sandyard.scopes import HANG_UP

MAX_URL_BYTES = 65_535
"""What the parser can count."""
MAX_HEAD_BYTES = 1 << 18
"""Request line and headers, and likewise trailers: terminals send subprotocol headers of 70 KB."""
LINGER_SECONDS = 1.0
"""How long one who was hung up on may be silent before the connection is closed, while we read on."""
MAX_LINGER_SECONDS = 30.0
"""And how long that may last in all."""
TLS_HANDSHAKE = b"\x16\x03"
"""How a client begins that takes us for https. *Source:* RFC 8446, 5.1."""
CODES = {
    HTTPStatus.BAD_REQUEST: "BAD_REQUEST",
    HTTPStatus.REQUEST_TIMEOUT: "REQUEST_TIMEOUT",
    HTTPStatus.REQUEST_URI_TOO_LONG: "URI_TOO_LONG",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "REQUEST_HEADER_FIELDS_TOO_LARGE",
}


class HttpProtocol(HttpToolsProtocol):
    """One connection. What no application sees, because it is no request, is answered here as JSON, too."""

    head_seconds = 60.0
    """How long a client may take for the head of a request; afterwards the connection is somebody else's."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._fruitless_bytes = 0
        """Read since something came of it: the parser keeps what is unfinished, without an end."""
        self._head_timer: asyncio.TimerHandle | None = None
        self._lingering: Lingering | None = None
        self._is_ending = False
        self._has_spoken = False
        self._running: RequestResponseCycle | None = None
        """The request that an application is at: `cycle` is the newest, which may wait behind it."""

    @property
    def is_leaving(self) -> bool:
        """Whether nothing more may be written."""
        return self._lingering is not None or self.transport.is_closing()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_head_timer()
        self._release()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._lingering is not None:
            self._lingering.heard()
            return
        if not self._has_spoken and data.startswith(TLS_HANDSHAKE):
            # Container engines try this first at every push and pull: no line in the log for each.
            self._refuse(HTTPStatus.BAD_REQUEST, "This port takes plain http")
            return
        self._has_spoken = True
        self._fruitless_bytes += len(data)
        super().data_received(data)
        if self._fruitless_bytes > MAX_HEAD_BYTES:
            self._refuse(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                f"The head of the request is longer than {MAX_HEAD_BYTES} bytes",
            )

    def on_message_begin(self) -> None:
        self._await_head()
        super().on_message_begin()
        self.scope[HANG_UP] = self._hang_up  # type: ignore[literal-required]  # our own key in the scope

    def on_headers_complete(self) -> None:
        self._fruitless_bytes = 0
        self._cancel_head_timer()
        super().on_headers_complete()
        if self.cycle is not None and self.cycle.transport is self.transport:
            self.cycle.transport = _Way(self, self.cycle)  # type: ignore[assignment]  # what it uses of one

    def on_body(self, body: bytes) -> None:
        self._fruitless_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._fruitless_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if self._lingering is None:
            super().on_response_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def shutdown(self) -> None:
        self._is_ending = True
        if self._lingering is None:
            super().shutdown()
        else:
            self.transport.close()

    def close_after_answer(self, *, is_body_read: bool) -> None:
        """Close, as the answer said; gently while the request is still on its way, unless the server ends."""
        if is_body_read or self._is_ending:
            self.transport.close()
        else:
            self._hang_up()

    def send_400_response(self, msg: str) -> None:
        if len(self.url) > MAX_URL_BYTES:
            self._refuse(HTTPStatus.REQUEST_URI_TOO_LONG, f"The URL is longer than {MAX_URL_BYTES} bytes")
        else:
            self._refuse(HTTPStatus.BAD_REQUEST, msg)

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_seconds, self._head_did_not_come)

    def _cancel_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_did_not_come(self) -> None:
        self._head_timer = None
        self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"No whole request within {self.head_seconds:g} s")

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        """Answer, unless another answer has begun, and close."""
        if self.is_leaving:
            return
        running = self._running
        if running is None or running.response_complete or not running.response_started:
            self.transport.write(refusal(status, message))
        self._leave()

    def _hang_up(self) -> None:
        if not self.is_leaving:
            self._leave()

    def _leave(self) -> None:
        """Nothing more is said or heard."""
        self._release()
        self.flow.resume_reading()
        self._lingering = Lingering(self.transport, self.loop)

    def _release(self) -> None:
        """Tell applications that the client is gone; uvicorn tells the newest request alone."""
        for cycle in (self._running, self.cycle):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()


class _Way:
    """The connection as an answer has it: uvicorn closes one that is not kept as soon as the answer is out."""

    __slots__ = ("_cycle", "_protocol")

    def __init__(self, protocol: HttpProtocol, cycle: RequestResponseCycle) -> None:
        self._protocol = protocol
        self._cycle = cycle

    def is_closing(self) -> bool:
        """Whether it is too late to write."""
        return self._protocol.is_leaving

    def write(self, data: bytes) -> None:
        """Write, unless it is too late."""
        if not self._protocol.is_leaving:
            self._protocol.transport.write(data)

    def close(self) -> None:
        """Close when the client is done as well."""
        self._protocol.close_after_answer(is_body_read=not self._cycle.more_body)


class Lingering:
    """A connection on its way to its end: what was written goes out, what still comes is read and dropped.

    Closed with bytes unread, a connection is reset: then what was written is lost to a client that still sends, and it
    meets another error than the end. TLS knows no half of a connection: there the client sees the end when it is over.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._latest = loop.time() + MAX_LINGER_SECONDS
        self._timer = loop.call_later(LINGER_SECONDS, transport.close)
        if transport.can_write_eof():
            with suppress(OSError):  # the client is gone, which is noticed when it is read from
                transport.write_eof()

    def heard(self) -> None:
        """Something was dropped: more may come."""
        if self._loop.time() < self._latest:
            self._timer.cancel()
            self._timer = self._loop.call_later(LINGER_SECONDS, self._transport.close)


def refusal(status: HTTPStatus, message: str) -> bytes:
    """A whole HTTP answer with the protocol's error body. Path and method are not known, or not to be believed."""
    body = json.dumps(
        {
            "statusCode": status.value,
            "message": message,
            "code": CODES[status],
            "source": "DAYTONA_API",
            "error": status.phrase,
            "path": "",
            "method": "",
            "timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        }
    ).encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body
