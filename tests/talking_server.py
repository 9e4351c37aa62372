"""A server of a test's host for both versions of HTTP: `PORT [CERTIFICATE [PROTOCOL...]]`. Says `ready` first.

`/echo` tells what came, as JSON: version, path, headers, trailers, and of the body its length, hash and beginning.
Other paths: `/events` (each next one when `/go` is asked for), `/early` (an answer before the body is read),
`/upgrade` (bytes come back), `/talk` (each piece comes back at once, HTTP/2), `/alone` (headers and no more),
`/leave` (GOAWAY, then the answer), `/big?BYTES`.
"""

import asyncio
import contextlib
import hashlib
import json
import ssl
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import h11
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded, TrailersReceived, WindowUpdated
from hyperframe.frame import GoAwayFrame

READ_BYTES = 1 << 16
PREFACE = b"PRI "
Text = list[tuple[str, str]]


def seen(version: str, path: str, headers: Text, body: "Body", trailers: Text) -> bytes:
    told = {"version": version, "path": path, "headers": headers, "trailers": trailers, **body.told()}
    return json.dumps(told).encode()


def text(headers: Any) -> Text:
    return [(name.decode(), value.decode()) for name, value in headers]


class Body:
    def __init__(self) -> None:
        self.length, self.hash, self.head = 0, hashlib.sha256(), b""

    def feed(self, data: bytes) -> None:
        self.length += len(data)
        self.hash.update(data)
        self.head = (self.head + data)[:1000]

    def told(self) -> dict[str, Any]:
        return {"length": self.length, "sha256": self.hash.hexdigest(), "body": self.head.decode(errors="replace")}


asked_to_go = asyncio.Semaphore(0)
"""Counts the requests for `/go` that no event has answered yet."""


class First:
    """HTTP/1.1, one request."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> None:
        self.reader, self.writer = reader, writer
        self.connection = h11.Connection(h11.SERVER)
        self.connection.receive_data(data)

    async def run(self) -> None:
        request = await self.next()
        path = request.target.decode()
        if path == "/early":
            await self.answer(413, b"too much")
            await self.linger()
        elif path == "/upgrade":
            await self.upgrade()
        elif path == "/events":
            await self.events()
        elif path == "/go":
            asked_to_go.release()
            await self.answer(200, b"gone")
        else:
            body, trailers = await self.body()
            headers = text(request.headers.raw_items())
            await self.answer(200, seen("1.1", path, headers, body, trailers), [("X-Trailer", "last")])

    async def linger(self) -> None:
        """As servers do: closed with bytes unread, a connection is reset, and the answer may be lost."""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(5):
                while await self.reader.read(READ_BYTES):
                    pass

    async def body(self) -> tuple[Body, Text]:
        body = Body()
        if self.connection.they_are_waiting_for_100_continue:
            self.send(h11.InformationalResponse(status_code=100, headers=[]))
        while isinstance(event := await self.next(), h11.Data):
            body.feed(event.data)
        return body, text(event.headers)

    async def events(self) -> None:
        self.send(h11.Response(status_code=200, headers=[("Content-Type", "text/event-stream")]))
        for number in range(4):
            self.send(h11.Data(b"data: %d\n\n" % number))
            await asked_to_go.acquire()
        self.send(h11.EndOfMessage())

    async def upgrade(self) -> None:
        await self.next()
        self.send(h11.InformationalResponse(status_code=101, headers=[("Connection", "upgrade"), ("Upgrade", "echo")]))
        data = self.connection.trailing_data[0]
        while data := data or await self.reader.read(READ_BYTES):
            self.writer.write(data)
            data = b""

    async def answer(self, status: int, content: bytes, trailers: Text | None = None) -> None:
        headers = [("Transfer-Encoding", "chunked"), ("Connection", "close")]
        self.send(h11.Response(status_code=status, headers=headers))
        self.send(h11.Data(content))
        self.send(h11.EndOfMessage(headers=trailers or []))
        await self.writer.drain()

    def send(self, event: Any) -> None:
        self.writer.write(self.connection.send(event) or b"")

    async def next(self) -> Any:
        while (event := self.connection.next_event()) is h11.NEED_DATA:
            self.connection.receive_data(await self.reader.read(READ_BYTES))
        return event


class Second:
    """HTTP/2."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> None:
        self.reader, self.writer, self.data = reader, writer, data
        self.connection = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        self.requests: dict[int, tuple[str, Text, Body, Text]] = {}
        self.waiting: dict[int, tuple[bytes, int]] = {}
        """`{stream: (content, how much of it was sent)}`"""
        self.tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        self.connection.initiate_connection()
        data = self.data
        while data := data or await self.reader.read(READ_BYTES):
            for event in self.connection.receive_data(data):
                self.take(event)
            self.flush()
            data = b""

    def take(self, event: Any) -> None:
        number = getattr(event, "stream_id", 0)
        if isinstance(event, RequestReceived):
            headers = text(event.headers)
            path = dict(headers)[":path"]
            self.requests[number] = path, headers, Body(), []
            if path == "/talk":
                self.connection.send_headers(number, [(":status", "200")])
        elif isinstance(event, DataReceived):
            self.requests[number][2].feed(event.data)
            self.connection.acknowledge_received_data(event.flow_controlled_length, number)
            if self.requests[number][0] == "/talk":
                self.connection.send_data(number, event.data)
        elif isinstance(event, TrailersReceived):
            self.requests[number][3].extend(text(event.headers))
        elif isinstance(event, StreamEnded):
            task = asyncio.create_task(self.answer(number))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        elif isinstance(event, WindowUpdated):
            self.send_waiting()

    async def answer(self, number: int) -> None:
        path, headers, body, trailers = self.requests.pop(number)
        if path == "/alone":  # as gRPC's `Trailers-Only`
            self.connection.send_headers(number, [(":status", "200"), ("grpc-status", "5")], end_stream=True)
        elif path == "/talk":
            self.connection.send_headers(number, [("x-trailer", "last")], end_stream=True)
        else:
            if path == "/leave":
                self.flush()
                self.writer.write(GoAwayFrame(0, last_stream_id=number).serialize())
                await asyncio.sleep(0.5)
            self.connection.send_headers(number, [(":status", "200")])
            is_big = path.startswith("/big?")
            content = bytes(int(path[5:])) if is_big else seen("2", path, headers, body, trailers)
            self.waiting[number] = content, 0
            self.send_waiting()
        self.flush()

    def send_waiting(self) -> None:
        for number in list(self.waiting):
            content, sent = self.waiting[number]
            while sent < len(content):
                most = min(self.connection.local_flow_control_window(number), self.connection.max_outbound_frame_size)
                if not most:
                    break
                self.connection.send_data(number, content[sent : sent + most])
                sent += most
                self.waiting[number] = content, sent
            else:
                del self.waiting[number]
                self.connection.send_headers(number, [("x-trailer", "last")], end_stream=True)

    def flush(self) -> None:
        self.writer.write(self.connection.data_to_send())


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, h11.ProtocolError):
        data = await reader.read(READ_BYTES)
        await (Second if data.startswith(PREFACE) else First)(reader, writer, data).run()
    writer.close()


async def main(port: int, certificate: str | None = None, *protocols: str) -> None:
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        if protocols:
            context.set_alpn_protocols(list(protocols))
    server = await asyncio.start_server(serve, "0.0.0.0", port, ssl=context)  # noqa: S104  of a namespace of its own
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), *sys.argv[2:]))
