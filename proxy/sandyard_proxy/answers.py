"""Answers that the proxy gives itself: errors, its health, and the page a browser sees before a private preview."""

import html

import structlog

from sandyard_proxy.asgi import Message, Receive, Scope, Send, answer, answer_json, text_header
from sandyard_proxy.destinations import Mount, find_destination
from sandyard_proxy.errors import ProxyError, Unauthenticated, envelope
from sandyard_proxy.follow.stats import FollowStats

log = structlog.get_logger(__name__)

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Private preview</title></head>
<body><h1>This preview is private</h1>
<p>{message}</p>
<p>Open the URL that <code>preview-url</code> or <code>signed-preview-url</code> gives, with its token as
<code>?DAYTONA_SANDBOX_AUTH_KEY=...</code>, or send it as the header <code>X-Daytona-Preview-Token</code>.</p>
</body></html>
"""


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
        if _is_browser_at_preview(scope):
            page = PAGE.format(message=html.escape(error.message)).encode()
            await answer(scope, send, int(error.status), page, content_type="text/html; charset=utf-8", headers=headers)
            return
    body = envelope(error, scope.get("method", "GET"), scope["path"])
    await answer_json(scope, send, int(error.status), body, headers=headers)


async def answer_health(scope: Scope, send: Send, version: str, stats: FollowStats) -> None:
    """`{status, version, logs}`; the counters hold nothing about anybody."""
    await answer_json(scope, send, 200, {"status": "ok", "version": version, "logs": stats.as_dict()})


def _is_browser_at_preview(scope: Scope) -> bool:
    destination = find_destination(scope)
    accepts = text_header(scope["headers"], b"accept") or ""
    return (
        scope["type"] == "http"
        and destination is not None
        and destination.mount is Mount.PREVIEW
        and "text/html" in accepts
    )
