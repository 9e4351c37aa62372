"""What each fault does to one exchange."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from http import HTTPStatus

from sandyard.clock import Clock
from sandyard.faults import rules
from sandyard.scopes import HANG_UP
from sandyard_proxy.asgi import Message, Receive, Scope, Send, answer

Serve = Callable[[Scope, Receive, Send], Awaitable[None]]
LEAVE_SECONDS = 60.0
"""The server itself gives up earlier on who goes on sending."""
CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHORIZED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    408: "REQUEST_TIMEOUT",
    409: "CONFLICT",
    410: "GONE",
    413: "PAYLOAD_TOO_LARGE",
    429: "TOO_MANY_REQUESTS",
    501: "NOT_IMPLEMENTED",
    502: "BAD_GATEWAY",
    503: "SERVICE_UNAVAILABLE",
    504: "GATEWAY_TIMEOUT",
}
_PAYLOADS = ("http.response.body", "websocket.send")


async def answer_status(scope: Scope, send: Send, action: rules.Status, *, source: str) -> None:
    """The error body that all clients understand. *Source:* sdk-wire.md 8.1."""
    phrases = {status.value: status.phrase for status in HTTPStatus}
    body = {
        "statusCode": action.status,
        "message": action.message,
        "code": action.code or CODES.get(action.status, "INTERNAL_SERVER_ERROR"),
        "source": source,
        "error": phrases.get(action.status, "Error"),
        "path": scope["path"],
        "method": scope.get("method", "GET"),
        "timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
    }
    await answer(scope, send, action.status, json.dumps(body).encode(), content_type="application/json")


async def hang_up(scope: Scope, receive: Receive) -> None:
    """Close the connection, and return when the server lets go of the request."""
    scope[HANG_UP]()
    async with asyncio.timeout(LEAVE_SECONDS):
        await until_gone(receive)


def lasting(receive: Receive) -> Receive:
    """A `receive` that tells everybody that the client has left: WebSockets tell it only once."""
    last: Message | None = None

    async def again() -> Message:
        nonlocal last
        if last is not None:
            return last
        message = await receive()
        if message["type"].endswith(".disconnect"):
            last = message
        return message

    return again


async def until_gone(receive: Receive) -> None:
    """Return when the client has left."""
    while not (await receive())["type"].endswith(".disconnect"):
        pass


async def hang(receive: Receive, ended: asyncio.Event, seconds: float) -> None:
    """Return when the client has left, `ended` is set or the time is over."""
    waits = [asyncio.ensure_future(until_gone(receive)), asyncio.ensure_future(ended.wait())]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


class Altered:
    """A `send` that lets a fault happen to the answer."""

    def __init__(self, scope: Scope, send: Send, action: rules.Action, clock: Clock) -> None:
        self._hang_up: Callable[[], None] = scope[HANG_UP]
        self._send = send
        self._action = action
        self._clock = clock
        self._carried = 0
        self._is_done = False
        self.has_left = False
        """Whether the client's connection was closed here; what is still said to it is dropped."""

    async def __call__(self, message: Message) -> None:
        """Carry one message as the fault has it."""
        if self.has_left:
            return
        limit = getattr(self._action, "bytes", 0)
        match self._action:
            case rules.DropAfter():
                self._leave()
            case rules.Slice():
                await self._slice(message, self._action)
            case _ if message["type"] == "websocket.accept" and limit == 0:
                await self._send(message)
                self._is_done = True
                await self._happen()
            case _ if self._is_done or message["type"] not in _PAYLOADS:
                await self._send(message)
            case _:
                await self._at(message, limit)

    def _leave(self) -> None:
        self.has_left = True
        self._hang_up()

    async def _at(self, message: Message, limit: int) -> None:
        """Let it happen exactly after `limit` bytes of the body."""
        size = len(_payload(message))
        if self._carried + size < limit or (size == 0 and limit > 0 and message.get("more_body")):
            self._carried += size
            await self._send(message)
            return
        first, rest = _split(message, limit - self._carried)
        self._carried += len(_payload(first))
        if _payload(first):
            await self._send(first)
        if self._carried < limit:
            await self._send(rest)  # the answer was shorter than that
            return
        self._is_done = True
        await self._happen()
        if not self.has_left:
            await self._send(rest)

    async def _happen(self) -> None:
        match self._action:
            case rules.Cut():
                self._leave()
            case rules.Stall(seconds=seconds):
                await self._clock.sleep(seconds)
            case rules.Close(code=code, reason=reason):
                await self._send({"type": "websocket.close", "code": code, "reason": reason})
                self.has_left = True

    async def _slice(self, message: Message, action: rules.Slice) -> None:
        rest = message
        while message["type"] in _PAYLOADS and len(_payload(rest)) > action.bytes:
            first, rest = _split(rest, action.bytes)
            if not _payload(first):
                break  # a single character that is longer
            await self._send(first)
            await self._clock.sleep(action.pause_seconds)
        await self._send(rest)


def _payload(message: Message) -> bytes:
    text = message.get("text")
    if text is not None:
        return str(text).encode()
    return bytes(message.get("bytes") or message.get("body") or b"")


def _split(message: Message, at: int) -> tuple[Message, Message]:
    """Two messages; text is cut before the character that holds byte `at`."""
    payload = _payload(message)
    if message["type"] == "http.response.body":
        return {**message, "body": payload[:at], "more_body": True}, {**message, "body": payload[at:]}
    if message.get("text") is not None:
        head = payload[:at].decode(errors="ignore")
        return {"type": message["type"], "text": head}, {
            "type": message["type"],
            "text": str(message["text"])[len(head) :],
        }
    return {"type": message["type"], "bytes": payload[:at]}, {"type": message["type"], "bytes": payload[at:]}
