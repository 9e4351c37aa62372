"""A WebSocket of a client carried over to a peer: the peer's answer to the upgrade first, then messages both ways."""

import base64
import hashlib
import os

from sandyard_proxy.asgi import Headers, Receive, Scope, Send, end_to_end, text_header
from sandyard_proxy.connection import HttpConnection, ResponseHead
from sandyard_proxy.errors import BrokenExchange
from sandyard_proxy.forward import ClientGone, Lend, Outgoing, refuse_stale

ACCEPT_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""*Source:* RFC 6455, section 1.3."""
MAX_REFUSAL_BYTES = 1 << 20


async def tunnel(scope: Scope, receive: Receive, send: Send, lend: Lend, outgoing: Outgoing) -> None:
    """Carry one WebSocket until either side closes it.

    A peer that refuses the upgrade has its status and body passed on. Raises `DoorUnreachable` before anything was
    answered to the client, and `ClientGone`.
    """
    if (await receive())["type"] != "websocket.connect":
        raise ClientGone
    key = base64.b64encode(os.urandom(16))
    async with lend() as connection:
        await connection.send_head("GET", outgoing.target, _upgrade_headers(scope, outgoing.headers, key))
        head = await connection.head()
        if head.status != 101:
            refuse_stale(head)
            await _refuse(scope, send, connection, head)
            return
        _check(head, key)
        await send(_acceptance(head))
        # What frames are made of is imported by the first WebSocket: many installations never have one.
        from sandyard_proxy.bridge import Bridge

        await Bridge(connection, receive, send).run()


def _upgrade_headers(scope: Scope, headers: Headers, key: bytes) -> Headers:
    kept = [(name, value) for name, value in headers if not name.startswith(b"sec-websocket-")]
    offered = ", ".join(scope.get("subprotocols") or ())
    upgrade = [
        (b"connection", b"Upgrade"),
        (b"upgrade", b"websocket"),
        (b"sec-websocket-version", b"13"),
        (b"sec-websocket-key", key),
    ]
    return kept + upgrade + ([(b"sec-websocket-protocol", offered.encode("latin-1"))] if offered else [])


def _check(head: ResponseHead, key: bytes) -> None:
    expected = base64.b64encode(hashlib.sha1(key + ACCEPT_GUID, usedforsecurity=False).digest()).decode()
    if text_header(head.headers, b"sec-websocket-accept") != expected:
        raise BrokenExchange("bad gateway: the server in the sandbox does not speak WebSocket")


def _acceptance(head: ResponseHead) -> dict[str, object]:
    headers = [(key, value) for key, value in end_to_end(head.headers) if not key.startswith(b"sec-websocket-")]
    return {
        "type": "websocket.accept",
        "subprotocol": text_header(head.headers, b"sec-websocket-protocol"),
        "headers": headers,
    }


async def _refuse(scope: Scope, send: Send, connection: HttpConnection, head: ResponseHead) -> None:
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": 1008})
        return
    await send({"type": "websocket.http.response.start", "status": head.status, "headers": end_to_end(head.headers)})
    carried = 0
    while carried < MAX_REFUSAL_BYTES and (chunk := await connection.read()):
        carried += len(chunk)
        await send({"type": "websocket.http.response.body", "body": chunk, "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b""})
