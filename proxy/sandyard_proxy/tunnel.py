"""A WebSocket of a client carried over to a peer: the peer's answer to the upgrade first, then messages both ways."""

import asyncio
import base64
import hashlib
import os

import msgspec
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from sandyard_proxy.asgi import Headers, Receive, Scope, Send, end_to_end, text_header
from sandyard_proxy.connection import HttpConnection, ResponseHead
from sandyard_proxy.errors import BrokenExchange
from sandyard_proxy.forward import ClientGone, Lend, Outgoing, refuse_stale

ACCEPT_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""*Source:* RFC 6455, section 1.3."""
MAX_MESSAGE_BYTES = 1 << 26
MAX_REFUSAL_BYTES = 1 << 20
CLOSE_SECONDS = 5.0

_ABNORMAL = 1006


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
        await _Bridge(connection, receive, send).run()


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


class _Bridge(msgspec.Struct):
    """The two directions of an open tunnel. The first that ends ends the other."""

    connection: HttpConnection
    receive: Receive
    send: Send
    frames: Connection = msgspec.field(default_factory=lambda: Connection(ConnectionType.CLIENT))
    parts: list[bytes | bytearray] = msgspec.field(default_factory=list)
    texts: list[str] = msgspec.field(default_factory=list)
    size: int = 0

    async def run(self) -> None:
        up = asyncio.create_task(self._carry_up())
        down = asyncio.create_task(self._carry_down())
        try:
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            if up.done() and not down.done():
                # The peer answers our close frame; its answer ends the other direction.
                await asyncio.wait({down}, timeout=CLOSE_SECONDS)
        finally:
            for task in (up, down):
                task.cancel()
            await asyncio.wait({up, down})
            self.connection.close()
        for task in (up, down):
            if not task.cancelled():
                task.result()

    async def _carry_up(self) -> None:
        """What the client sends."""
        while True:
            message = await self.receive()
            if message["type"] == "websocket.disconnect":
                code = message.get("code") or CloseReason.NO_STATUS_RCVD
                await self._write(CloseConnection(_sendable(code), message.get("reason") or None))
                return
            text = message.get("text")
            await self._write(TextMessage(text) if text is not None else BytesMessage(message["bytes"]))

    async def _write(self, event: Event) -> None:
        try:
            await self.connection.write(self.frames.send(event))
        except (BrokenExchange, LocalProtocolError):
            return  # the peer has closed; the other direction tells the client

    async def _carry_down(self) -> None:
        """What the peer sends."""
        while True:
            try:
                data = await self.connection.read()
                self.frames.receive_data(data or None)
            except (BrokenExchange, RemoteProtocolError):
                await self._close(CloseReason.INTERNAL_ERROR, "the server in the sandbox broke off")
                return
            for event in self.frames.events():
                if await self._pass_on(event):
                    return

    async def _pass_on(self, event: Event) -> bool:
        """Carry one event; whether it was the last."""
        if isinstance(event, CloseConnection):
            code = int(event.code)
            if code == _ABNORMAL:
                await self._close(CloseReason.INTERNAL_ERROR, "the server in the sandbox broke off")
            else:
                await self._write(event.response())
                await self._close(_sendable(code), event.reason or "")
            return True
        if isinstance(event, Ping):
            await self._write(event.response())
        elif isinstance(event, BytesMessage | TextMessage):
            return await self._gather(event)
        return False

    async def _gather(self, event: BytesMessage | TextMessage) -> bool:
        """Join the pieces of a message; whether it grew beyond all bounds."""
        self.size += len(event.data)
        if self.size > MAX_MESSAGE_BYTES:
            await self._close(CloseReason.MESSAGE_TOO_BIG, "message too big")
            return True
        if isinstance(event, TextMessage):
            self.texts.append(event.data)
            if event.message_finished:
                await self.send({"type": "websocket.send", "text": "".join(self.texts)})
        else:
            self.parts.append(event.data)
            if event.message_finished:
                await self.send({"type": "websocket.send", "bytes": b"".join(self.parts)})
        if event.message_finished:
            self.parts, self.texts, self.size = [], [], 0
        return False

    async def _close(self, code: int, reason: str) -> None:
        await self.send({"type": "websocket.close", "code": int(code), "reason": reason})


def _sendable(code: int) -> int:
    """A close code that may stand in a frame: those that only mean "none came" become a normal close."""
    return int(CloseReason.NORMAL_CLOSURE) if code in (1004, 1005, _ABNORMAL, 1015) else int(code)
