"""Answers that the proxy gives itself: errors and its health."""

import structlog

from sandyard_proxy.asgi import Message, Receive, Scope, Send, answer_json
from sandyard_proxy.errors import ProxyError, Unauthenticated, envelope
from sandyard_proxy.follow.stats import FollowStats
from sandyard_proxy.pages import answer_page, wants_page

log = structlog.get_logger(__name__)


class AnswerOnce:
    """A `send` that knows whether an answer has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False
        self.is_open_socket = False

    async def __call__(self, message: Message) -> None:
        self.begun = True
        self.is_open_socket = message["type"] in ("websocket.accept", "websocket.send")
        await self._send(message)


async def answer_error(scope: Scope, receive: Receive, send: AnswerOnce, error: ProxyError) -> None:
    """Tell the client, as far as it can still be told: an answer that has begun can only be cut off."""
    if send.begun:
        log.info("answer_cut_off", path=scope["path"], reason=error.message)
        if send.is_open_socket:
            await send({"type": "websocket.close", "code": 1011, "reason": error.message[:100]})
        return
    headers = []
    if isinstance(error, Unauthenticated):
        headers.append((b"www-authenticate", b'Bearer realm="sandyard"'))
    if wants_page(scope):
        await answer_page(scope, send, error, headers)
        return
    body = envelope(error, scope.get("method", "GET"), scope["path"])
    await answer_json(scope, send, int(error.status), body, headers=headers)


async def answer_health(scope: Scope, send: Send, version: str, stats: FollowStats) -> None:
    """`{status, version, logs}`; the counters hold nothing about anybody."""
    await answer_json(scope, send, 200, {"status": "ok", "version": version, "logs": stats.as_dict()})
