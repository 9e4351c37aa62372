"""The journal: what was asked and answered, in a ring that cannot grow beyond its bounds. Secrets are masked."""

import itertools
import re
import time
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec

from sandyard.clock import Clock
from sandyard_proxy.asgi import Headers, Message, Receive, Scope, Send, raw_path, text_header

MAX_ENTRIES = 20_000
MAX_TOTAL_BYTES = 64 << 20
MAX_BODY_BYTES = 16 << 10
MAX_HEADER_BYTES = 8 << 10
MASK = "***"
SECRET_HEADERS = frozenset(
    ("authorization", "cookie", "set-cookie", "x-daytona-preview-token", "proxy-authorization", "x-sandyard-door")
)
_SECRET_QUERY = re.compile(r"((?:DAYTONA_SANDBOX_AUTH_KEY|token|key|password)=)[^&]*", re.IGNORECASE)
_SECRET_FIELD = re.compile(
    r'("(?:[^"]*(?:token|password|secret|apikey|api_key|authkey|value)[^"]*)"\s*:\s*)"(?:[^"\\]|\\.)*"', re.IGNORECASE
)


class Record(msgspec.Struct):
    """One request or WebSocket."""

    number: int
    at: datetime
    method: str
    path: str
    """With the query, secrets masked."""
    operation: str | None
    sandbox: str | None
    organization_id: str | None
    source: str
    version: str
    request_headers: dict[str, str]
    request_body: bytearray = msgspec.field(default_factory=bytearray)
    status: int | None = None
    """`None`: the connection ended without an answer."""
    seconds: float = 0.0
    response_headers: dict[str, str] = msgspec.field(default_factory=dict)
    response_body: bytearray = msgspec.field(default_factory=bytearray)
    request_bytes: int = 0
    response_bytes: int = 0
    messages_in: int = 0
    messages_out: int = 0
    close_code: int | None = None

    @property
    def weight(self) -> int:
        """Bytes it takes, roughly."""
        return 2048 + len(self.request_body) + len(self.response_body)

    @property
    def is_websocket(self) -> bool:
        """Whether it is a WebSocket."""
        return self.method == "WEBSOCKET"

    def as_json(self) -> dict[str, Any]:
        """As the API shows it."""
        return {
            "number": self.number,
            "at": self.at.isoformat(),
            "method": self.method,
            "path": self.path,
            "operation": self.operation,
            "sandbox": self.sandbox,
            "status": self.status,
            "seconds": round(self.seconds, 6),
            "source": self.source,
            "version": self.version,
            "requestHeaders": self.request_headers,
            "requestBody": text_of(self.request_body),
            "requestBytes": self.request_bytes,
            "responseHeaders": self.response_headers,
            "responseBody": text_of(self.response_body),
            "responseBytes": self.response_bytes,
            "messagesIn": self.messages_in,
            "messagesOut": self.messages_out,
            "closeCode": self.close_code,
        }


class Journal:
    """The ring. The oldest records go first, by number and by bytes."""

    def __init__(self, clock: Clock, *, is_on: bool = False) -> None:
        self.is_on = is_on
        self._clock = clock
        self._records: deque[Record] = deque()
        self._bytes = 0
        self._numbers = itertools.count(1)
        self.dropped = 0
        """Records that went to make room."""

    def begin(self, scope: Scope, *, operation: str | None, sandbox: str | None, organization_id: str | None) -> Record:
        """A record of a request that begins now."""
        headers = scope["headers"]
        query = (scope.get("query_string") or b"").decode("latin-1")
        path = raw_path(scope).decode("latin-1") + ("?" + masked_query(query) if query else "")
        return Record(
            number=next(self._numbers),
            at=self._clock.now(),
            method="WEBSOCKET" if scope["type"] == "websocket" else scope["method"],
            path=path[:MAX_HEADER_BYTES],
            operation=operation,
            sandbox=sandbox,
            organization_id=organization_id,
            source=(text_header(headers, b"x-daytona-source") or "")[:100],
            version=(text_header(headers, b"x-daytona-sdk-version") or "")[:100],
            request_headers=masked_headers(headers),
        )

    def keep(self, record: Record) -> None:
        """Put a record that is over into the ring."""
        self._records.append(record)
        self._bytes += record.weight
        while len(self._records) > MAX_ENTRIES or self._bytes > MAX_TOTAL_BYTES:
            self._bytes -= self._records.popleft().weight
            self.dropped += 1

    def clear(self, organization_id: str | None) -> None:
        """Forget the records of an organization; of `None`, all."""
        kept = [one for one in self._records if organization_id not in (None, one.organization_id)]
        self._records = deque(kept)
        self._bytes = sum(one.weight for one in kept)

    def search(self, organization_id: str | None, **wanted: str | int | None) -> Iterator[Record]:
        """Records of an organization, of `None` all, oldest first, that have every value that is asked for.

        `path`: anywhere in it; `since`: a number above that one; `text`: in path or bodies.
        """
        for record in self._records:
            if organization_id in (None, record.organization_id) and _meets(record, wanted):
                yield record


class Recorder:
    """Both ends of one exchange, noting what passes."""

    def __init__(self, record: Record, receive: Receive, send: Send) -> None:
        self.record = record
        self._receive = receive
        self._send = send
        self._begun = time.perf_counter()

    async def receive(self) -> Message:
        """What the client says."""
        message = await self._receive()
        if message["type"] == "websocket.receive":
            self.record.messages_in += 1
        elif message["type"] == "websocket.disconnect" and self.record.close_code is None:
            self.record.close_code = message.get("code")
        body = _payload(message)
        self.record.request_bytes += len(body)
        _append(self.record.request_body, body)
        return message

    async def send(self, message: Message) -> None:
        """What the client is told."""
        kind = message["type"]
        if kind.endswith("response.start"):
            self.record.status = message["status"]
            self.record.response_headers = masked_headers(message.get("headers", ()))
        elif kind == "websocket.accept":
            self.record.status = 101
        elif kind == "websocket.send":
            self.record.messages_out += 1
        elif kind == "websocket.close":
            self.record.close_code = message.get("code")
        body = _payload(message)
        self.record.response_bytes += len(body)
        _append(self.record.response_body, body)
        await self._send(message)

    def end(self) -> Record:
        """The record, complete."""
        self.record.seconds = time.perf_counter() - self._begun
        return self.record


def masked_headers(headers: Headers) -> dict[str, str]:
    """Headers as a table, with what lets somebody in left out."""
    table: dict[str, str] = {}
    for key, value in headers:
        name = key.decode("latin-1")
        text = value.decode("latin-1")[:MAX_HEADER_BYTES]
        if name in SECRET_HEADERS:
            text = f"Bearer {MASK}" if text.lower().startswith("bearer ") else MASK
        table[name] = text
    return table


def masked_query(query: str) -> str:
    """A query without keys and tokens."""
    return _SECRET_QUERY.sub(rf"\1{MASK}", query)


def text_of(body: bytearray | bytes) -> str:
    """A body for people: text with its secrets masked; what is no text as its size."""
    try:
        text = bytes(body).decode()
    except UnicodeDecodeError as error:
        if error.start < max(0, len(body) - 4) or len(body) < MAX_BODY_BYTES:
            return f"<{len(body)} bytes that are no text>"
        text = bytes(body).decode(errors="ignore")
    return _SECRET_FIELD.sub(rf'\1"{MASK}"', text)


def _append(kept: bytearray, more: bytes) -> None:
    room = MAX_BODY_BYTES - len(kept)
    if room > 0:
        kept += more[:room]


def _payload(message: Message) -> bytes:
    text = message.get("text")
    if text is not None:
        return str(text).encode()
    return bytes(message.get("bytes") or message.get("body") or b"")


def _meets(record: Record, wanted: Mapping[str, str | int | None]) -> bool:
    for name, value in wanted.items():
        if value is None:
            continue
        if name == "since":
            if record.number <= int(value):
                return False
        elif name == "path":
            if str(value) not in record.path:
                return False
        elif name == "text":
            if not any(
                str(value) in text
                for text in (record.path, text_of(record.request_body), text_of(record.response_body))
            ):
                return False
        elif str(getattr(record, name)) != str(value):
            return False
    return True
