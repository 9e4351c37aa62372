"""The little of ASGI that the proxy needs: types, headers, whole answers."""

import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
"""Names in lower case, in the order of the wire."""

HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)


def header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """The first value of a header, or `None`."""
    for key, value in headers:
        if key == name:
            return value
    return None


def text_header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str | None:
    """The first value of a header as text, or `None`."""
    value = header(headers, name)
    return None if value is None else value.decode("latin-1").strip()


def end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """What may pass a proxy: without the hop-by-hop headers and those that `Connection` names."""
    kept = list(headers)
    dropped = set(HOP_BY_HOP)
    for key, value in kept:
        if key == b"connection":
            dropped.update(name.strip().lower() for name in value.split(b","))
    return [(key, value) for key, value in kept if key not in dropped]


def raw_path(scope: Scope) -> bytes:
    """The path as the client wrote it, percent-encoding kept, without the query."""
    raw: bytes | None = scope.get("raw_path")
    if raw is None:
        raw = str(scope["path"]).encode()
    return raw.partition(b"?")[0] or b"/"


async def answer(
    scope: Scope,
    send: Send,
    status: int,
    body: bytes,
    *,
    content_type: str,
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> None:
    """Send a whole answer; on a WebSocket that was not accepted it fails the upgrade with this status and body."""
    prefix = "websocket.http.response" if scope["type"] == "websocket" else "http.response"
    if scope["type"] == "websocket" and "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": 1008})
        return
    fields = [(b"content-type", content_type.encode()), (b"content-length", b"%d" % len(body)), *headers]
    await send({"type": f"{prefix}.start", "status": status, "headers": fields})
    payload = b"" if scope.get("method") == "HEAD" else body
    await send({"type": f"{prefix}.body", "body": payload})


async def answer_json(
    scope: Scope, send: Send, status: int, value: object, *, headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    """`answer` with a JSON body."""
    await answer(scope, send, status, json.dumps(value).encode(), content_type="application/json", headers=headers)
