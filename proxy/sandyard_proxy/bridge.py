"""The messages of a WebSocket carried both ways, between a client of ours and a peer that has accepted the upgrade."""

import asyncio

import msgspec
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from sandyard_proxy.asgi import Receive, Send
from sandyard_proxy.connection import HttpConnection
from sandyard_proxy.errors import BrokenExchange

MAX_MESSAGE_BYTES = 1 << 26
CLOSE_SECONDS = 5.0

_ABNORMAL = 1006


class Bridge(msgspec.Struct):
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
