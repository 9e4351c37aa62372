"""One client connection: HTTP/1.1 by h11, one request at a time, bounded in memory and time both ways."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import h11

from sandyard_daemon.diary import report
from sandyard_daemon.http.messages import Answer, Request, Response, StreamResponse, Switched
from sandyard_daemon.linux import give_back_memory

IDLE_SECONDS = 120.0
HEAD_SECONDS = 15.0
BODY_STALL_SECONDS = 60.0
WRITE_STALL_SECONDS = 900.0
"""A follower may pause for long; its proxy keeps the connection."""
MAX_HEAD = 128 << 10
"""Bytes; terminals offer subprotocols of up to 70 KB."""
MAX_UNREAD = 512 << 10
GIVE_BACK_AFTER = 8 << 20
"""Bytes of requests and answers, after which the C library holds some megabytes that no sandbox should pay for."""
MAX_DISCARDED = 256 << 20
"""Bytes of a refused body read on, so that its sender lives to see the answer."""

Dispatch = Callable[[Request], Awaitable[Answer]]

_WRITE_AT_ONCE = 1 << 18


class Stalled(ConnectionError):
    """The client neither reads nor writes any more."""


class Connection(asyncio.Protocol):
    """Serves requests until the client goes or stays idle. A request is cancelled when its client goes away."""

    def __init__(self, dispatch: Dispatch, siblings: set["Connection"]) -> None:
        self._dispatch = dispatch
        self._siblings = siblings
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._unread = 0
        self._moved = 0
        """Bytes both ways since memory was given back."""
        self._readable: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._closing = False
        self._busy = False
        self._tunnel: _Tunnel | None = None
        self.task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client came."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  what a stream server hands to protocols
        self.transport = transport
        transport.set_write_buffer_limits(high=_WRITE_AT_ONCE)
        self._siblings.add(self)
        self.task = asyncio.get_running_loop().create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        """Bytes came; more are asked for only when these were used."""
        if self._tunnel is not None:
            self._tunnel.feed(data)
            return
        with contextlib.suppress(h11.RemoteProtocolError):  # the reader meets it again at its next event
            self._http.receive_data(data)
        self._unread += len(data)
        self._moved += len(data)
        if self._unread > MAX_UNREAD:
            self.transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        """The client went away; half-closed HTTP clients do not exist in practice, and a dead one must be noticed."""
        if self._tunnel is None:
            return False
        self._tunnel.feed(b"")
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The client went away: nobody reads the answer."""
        self._siblings.discard(self)
        if self._tunnel is not None:
            self._tunnel.feed(b"")
        self._wake()
        self.resume_writing()
        if self.task is not None:
            self.task.cancel()

    def pause_writing(self) -> None:
        """The client reads slower than we write."""
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """The client caught up."""
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    def close_when_idle(self) -> None:
        """Finish the request that runs, take no further one."""
        self._closing = True
        if not self._busy:
            self.transport.close()

    def abort(self) -> None:
        """Cut at once."""
        self.transport.abort()

    async def _serve(self) -> None:
        try:
            while not self._closing and await self._serve_one():
                self._http.start_next_cycle()
        except h11.RemoteProtocolError as error:
            await self._refuse(error)
        except (ConnectionError, TimeoutError):
            self.transport.abort()
        except Exception as error:
            report("answer_broken", error=repr(error))
            self.transport.abort()
        finally:
            self.transport.close()

    async def _serve_one(self) -> bool:
        """Answer one request; false when it was the last of this connection."""
        event = await self._head()
        if not isinstance(event, h11.Request):
            return False
        self._busy = True
        body = _Body(self)
        headers = list(event.headers)
        request = Request(event.method.decode(), event.target.decode("latin-1"), headers, body)
        answer = await self._dispatch(request)
        if isinstance(answer, Switched):
            return False
        await self._send(answer, bodyless=request.method == "HEAD")
        self._busy = False
        if self._moved > GIVE_BACK_AFTER:
            self._moved = 0
            give_back_memory()
        return await self._rest_of_request() and self._http.our_state is h11.DONE

    async def _head(self) -> object:
        event = self._http.next_event()
        if event is not h11.NEED_DATA:
            return event
        async with asyncio.timeout(IDLE_SECONDS):
            await self.more()
        async with asyncio.timeout(HEAD_SECONDS):
            return await self.event()

    async def _rest_of_request(self) -> bool:
        """Whether the request's body ends soon enough to keep the connection; a huge unread one is not worth it."""
        spare = MAX_DISCARDED
        while self._http.their_state is h11.SEND_BODY:
            if self._http.they_are_waiting_for_100_continue:
                return False
            event = await self.event()
            if isinstance(event, h11.Data):
                spare -= len(event.data)
            if spare < 0 or isinstance(event, h11.ConnectionClosed):
                return False
        return self._http.their_state is h11.DONE

    async def event(self) -> object:
        """h11's next event, waiting for the bytes it needs. Raises `h11.RemoteProtocolError`, `Stalled`."""
        while (event := self._http.next_event()) is h11.NEED_DATA:
            async with asyncio.timeout(BODY_STALL_SECONDS):
                await self.more()
        return event

    async def more(self) -> None:
        """Return when bytes came or the client went."""
        self._unread = 0
        if self.transport.is_closing():
            raise ConnectionResetError
        self.transport.resume_reading()
        self._readable = asyncio.get_running_loop().create_future()
        await self._readable

    def _wake(self) -> None:
        if self._readable is not None and not self._readable.done():
            self._readable.set_result(None)

    async def _send(self, answer: Response | StreamResponse, *, bodyless: bool) -> None:
        headers = [(name.encode(), value.encode("latin-1")) for name, value in answer.headers]
        if answer.content_type is not None:
            headers.append((b"content-type", answer.content_type.encode()))
        if isinstance(answer, Response):
            headers.append((b"content-length", str(len(answer.body)).encode()))
            head = self._http.send(h11.Response(status_code=answer.status, headers=headers)) or b""
            data = self._http.send(h11.Data(data=answer.body)) if answer.body and not bodyless else None
            await self.write(head + (data or b"") + (self._http.send(h11.EndOfMessage()) or b""))
            return
        try:
            await self.write(self._http.send(h11.Response(status_code=answer.status, headers=headers)) or b"")
            if bodyless:
                await self.write(self._http.send(h11.EndOfMessage()) or b"")
                return
            async for chunk in answer.chunks:
                self._moved += len(chunk)
                for piece in self._http.send_with_data_passthrough(h11.Data(data=chunk)) or ():
                    self.transport.write(piece)
                await self.drain()
        except Exception:
            # The head is out: only cutting the connection tells the client that the body is not whole.
            self.transport.abort()
            raise
        finally:
            await _close(answer.chunks)
        await self.write(self._http.send(h11.EndOfMessage()) or b"")

    async def write(self, data: bytes) -> None:
        """Send, waiting while the client is slow. Raises `TimeoutError`, `ConnectionError`."""
        if data:
            self.transport.write(data)
        await self.drain()

    async def drain(self) -> None:
        """Return when there is room to write."""
        if self.transport.is_closing():
            raise ConnectionResetError
        if self._writable is not None:
            async with asyncio.timeout(WRITE_STALL_SECONDS):
                await self._writable

    async def continue_if_waiting(self) -> None:
        """Tell a client that waits for it to send the body."""
        if self._http.they_are_waiting_for_100_continue:
            await self.write(self._http.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")

    def tunnel(self) -> "_Tunnel":
        """Leave HTTP."""
        early, _ = self._http.trailing_data
        self._tunnel = _Tunnel(self, early)
        self.transport.resume_reading()
        return self._tunnel

    async def _refuse(self, error: h11.RemoteProtocolError) -> None:
        with contextlib.suppress(h11.LocalProtocolError, ConnectionError, TimeoutError):
            status = error.error_status_hint
            body = b'{"statusCode": %d, "message": "malformed request", "code": "BAD_REQUEST"}' % status
            await self._send(Response(status, body, "application/json", (("connection", "close"),)), bodyless=False)


class _Body:
    """What a request may do with its connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def chunks(self) -> AsyncIterator[bytes]:
        await self._connection.continue_if_waiting()
        while isinstance(event := await self._connection.event(), h11.Data):
            yield bytes(event.data)
        if isinstance(event, h11.ConnectionClosed):
            raise ConnectionResetError

    def take_over(self) -> "_Tunnel":
        return self._connection.tunnel()


class _Tunnel:
    """The raw bytes of a connection that left HTTP, at the most `MAX_UNREAD` waiting."""

    def __init__(self, connection: Connection, early: bytes) -> None:
        self._connection = connection
        self._waiting = bytearray(early)
        self._ended = False
        self._arrived: asyncio.Future[None] | None = None

    def feed(self, data: bytes) -> None:
        self._waiting += data
        self._ended = self._ended or not data
        if len(self._waiting) > MAX_UNREAD:
            self._connection.transport.pause_reading()
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    async def read(self) -> bytes:
        while not self._waiting and not self._ended:
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        data = bytes(self._waiting)
        self._waiting.clear()
        if not self._connection.transport.is_closing():
            self._connection.transport.resume_reading()
        return data

    async def write(self, data: bytes) -> None:
        await self._connection.write(data)

    def close(self) -> None:
        self._connection.transport.close()

    def abort(self) -> None:
        self._connection.abort()


async def _close(chunks: AsyncIterator[bytes]) -> None:
    """End a generator that was not read to its end, so that its own clean-up runs now."""
    close = getattr(chunks, "aclose", None)
    if close is not None:
        await close()
