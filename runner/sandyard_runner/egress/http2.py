"""HTTP/2 between a sandbox and a host: each request on a stream of its own here and there, both ways at a time.

What one side sends is acknowledged when the other has taken it, so that no more waits here than the windows allow.
"""

import asyncio
from collections import deque

import msgspec
import structlog
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    InformationalResponseReceived,
    RemoteSettingsChanged,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError

from sandyard_runner.egress.exchange import HEAD_SECONDS, IDLE_SECONDS
from sandyard_runner.egress.frames import BadFrame, GoAway, go_away
from sandyard_runner.egress.requests import Body, Refused, check_host, with_length
from sandyard_runner.egress.sides import STREAM_WINDOW, Side, answer
from sandyard_runner.egress.substitution import Headers, Substitution, Unfit
from sandyard_runner.egress.upstreams import Stream

log = structlog.get_logger(__name__)

REQUESTS_AT_ONCE = 100
MAX_HELD_BYTES = 8 << 20
"""Of bodies that are read whole, on one connection."""
MAX_UNSENT_BYTES = 1 << 20
"""Of answers to pings and the like, for a side that does not read."""
WRITE_AHEAD_BYTES = 1 << 18
FLUSH_SECONDS = 10.0


class _Way(msgspec.Struct):
    """What is to be sent on one stream to one side, in order."""

    waiting: deque[tuple[bytes, int]] = msgspec.field(default_factory=deque)
    """Pieces, each with what is to be acknowledged to its sender when it is sent."""
    trailers: Headers | None = None
    is_ending: bool = False
    has_ended: bool = False


class _Exchange(msgspec.Struct):
    """One request with its answer."""

    down_id: int
    head: Headers
    body: Body
    up_id: int | None = None
    """`None` while its head is held back."""
    up: _Way = msgspec.field(default_factory=_Way)
    down: _Way = msgspec.field(default_factory=_Way)


class Http2Relay:
    """One connection of a sandbox and its own to the host."""

    def __init__(self, downstream: Stream, upstream: Stream, substitution: Substitution, host: str) -> None:
        self._down = Side(downstream, is_client=True)
        self._up = Side(upstream, is_client=False)
        self._substitution = substitution
        self._host = host
        self._by_down: dict[int, _Exchange] = {}
        self._by_up: dict[int, _Exchange] = {}
        self._newest = 0
        self._is_closing = False
        self._is_idle = asyncio.Event()
        """Set each time that the last request under way has gone."""

    async def run(self, first: bytes = b"") -> None:
        """To the end of either side; `first` is what the sandbox has said. Raises `Refused`, `OSError`."""
        try:
            await self._begin()
            serving = [asyncio.create_task(self._pump(self._down, first)), asyncio.create_task(self._send(self._down))]
            asking = [asyncio.create_task(self._pump(self._up)), asyncio.create_task(self._send(self._up))]
            tasks = [*serving, *asking]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                await self._finish(serving)
                for task in done:
                    if (error := task.exception()) is not None:
                        log.debug("egress_connection_broke", reason=type(error).__name__)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            self._up.writer.close()

    async def _begin(self) -> None:
        """With the host's settings known, so that we promise no more requests at once than it takes."""
        self._up.begin(REQUESTS_AT_ONCE)
        try:
            async with asyncio.timeout(HEAD_SECONDS):
                while not [each for each in await self._told() if isinstance(each, RemoteSettingsChanged)]:
                    pass
        except (OSError, ProtocolError, BadFrame) as error:
            raise Refused(502, f"{self._host} does not speak HTTP/2: {error}") from error
        self._up.flush()
        most = self._up.connection.remote_settings.max_concurrent_streams
        self._down.begin(min(REQUESTS_AT_ONCE, most))

    async def _told(self) -> "list[Event | GoAway]":
        found = await self._up.events()
        if found is None:
            raise ConnectionError("it hung up")
        return found

    async def _finish(self, serving: "list[asyncio.Task[None]]") -> None:
        """What has come whole for the sandbox still goes out, while `serving` runs; what has not is reset."""
        self._is_closing = True
        for exchange in list(self._by_down.values()):
            if not exchange.down.is_ending:
                self._reset(self._down, exchange.down_id, ErrorCodes.INTERNAL_ERROR)
                self._forget(exchange)
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                await self._until_idle(serving)
                self._down.flush()
                self._down.writer.write(go_away(self._newest, ErrorCodes.NO_ERROR))
                await self._down.writer.drain()
        except OSError:
            log.debug("egress_connection_broke", reason="not taken to its end")

    async def _until_idle(self, serving: "list[asyncio.Task[None]]") -> None:
        """Return when no request is under way, or nobody is left to take its answer."""
        if not self._by_down:
            return
        self._is_idle.clear()
        self._down.wake.set()
        idle = asyncio.create_task(self._is_idle.wait())
        try:
            await asyncio.wait({idle, *serving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            idle.cancel()

    async def _pump(self, side: Side, first: bytes = b"") -> None:
        """Take what a side says, until it ends or nothing is left to be done."""
        while (found := await side.events(first)) is not None:
            first = b""
            for event in found:
                if isinstance(event, GoAway):
                    self._close(side, event)
                elif side is self._down:
                    self._from_sandbox(event)
                else:
                    self._from_host(event)
            for each in (self._down, self._up):
                each.flush()
                each.wake.set()
            if side.writer.transport.get_write_buffer_size() > MAX_UNSENT_BYTES + STREAM_WINDOW:
                raise ConnectionError("it does not read")
            if self._is_closing and not self._by_down:
                return

    def _close(self, side: Side, said: GoAway) -> None:
        """What is under way goes on to its end."""
        self._is_closing = True
        if side is self._down:
            return
        for exchange in [each for number, each in self._by_up.items() if number > said.last_stream]:
            self._reset(self._down, exchange.down_id, ErrorCodes.REFUSED_STREAM)
            self._forget(exchange)
        self._down.flush()
        self._down.writer.write(go_away(self._newest, said.code))

    def _from_sandbox(self, event: Event) -> None:
        if isinstance(event, RequestReceived):
            self._take_request(event)
            return
        exchange = self._by_down.get(getattr(event, "stream_id", None) or 0)
        if isinstance(event, DataReceived):
            self._take_data(event, exchange)
        elif exchange is None:
            return
        elif isinstance(event, TrailersReceived):
            self._take_trailers(exchange, event.headers or [])
        elif isinstance(event, StreamEnded):
            last = exchange.body.end()
            if exchange.up_id is None:
                self._open(exchange, with_length(exchange.head, len(last)))
            exchange.up.waiting.append((last, 0))
            exchange.up.is_ending = True
        elif isinstance(event, StreamReset):
            if exchange.up_id is not None:
                self._reset(self._up, exchange.up_id, event.error_code or 0)
            self._forget(exchange)

    def _take_data(self, event: DataReceived, exchange: _Exchange | None) -> None:
        length = event.flow_controlled_length or 0
        if exchange is None or exchange.body.is_whole:
            self._down.connection.acknowledge_received_data(length, event.stream_id or 0)
            length = 0
        if exchange is not None:
            exchange.up.waiting.append((exchange.body.feed(event.data or b""), length))
            self._check_held(exchange)

    def _take_trailers(self, exchange: _Exchange, trailers: Headers) -> None:
        try:
            exchange.up.trailers = self._substitution.headers(trailers)
        except Unfit:
            self._reset(self._up, exchange.up_id or 0, ErrorCodes.CANCEL)
            self._reset(self._down, exchange.down_id, ErrorCodes.PROTOCOL_ERROR)
            self._forget(exchange)

    def _take_request(self, event: RequestReceived) -> None:
        number = event.stream_id or 0
        self._newest = max(self._newest, number)
        if self._is_closing:
            self._reset(self._down, number, ErrorCodes.REFUSED_STREAM)
            return
        try:
            head, body = self._outgoing(event.headers or [])
        except Refused as refused:
            answer(self._down.connection, number, refused)
            return
        exchange = self._by_down[number] = _Exchange(number, head, body)
        if not body.is_whole or event.stream_ended is not None:
            self._open(exchange, head, end_stream=event.stream_ended is not None)

    def _outgoing(self, headers: Headers) -> tuple[Headers, Body]:
        said = dict(headers)
        if self._substitution:
            check_host(said.get(b":authority") or said.get(b"host", b""), self._host)
            check_host(said.get(b"host") or said.get(b":authority", b""), self._host)
        # `te` may say `trailers` here, and gRPC insists on it.
        body = Body.of([(name, value) for name, value in headers if name != b"expect"], self._substitution)
        try:
            made = self._substitution.headers([item for item in headers if item[0] not in (b"expect", b":path")])
        except Unfit as error:
            raise Refused(400, str(error)) from error
        path = [(b":path", self._substitution.target(said[b":path"]))] if b":path" in said else []
        return [*path, *made], body

    def _open(self, exchange: _Exchange, head: Headers, *, end_stream: bool = False) -> None:
        up = self._up.connection
        if up.open_outbound_streams >= up.remote_settings.max_concurrent_streams:
            self._reset(self._down, exchange.down_id, ErrorCodes.REFUSED_STREAM)
            self._forget(exchange)
            return
        exchange.up_id = up.get_next_available_stream_id()
        self._by_up[exchange.up_id] = exchange
        up.send_headers(exchange.up_id, head, end_stream=end_stream)
        exchange.up.has_ended = end_stream

    def _check_held(self, exchange: _Exchange) -> None:
        if sum(each.body.held_bytes for each in self._by_down.values()) > MAX_HELD_BYTES:
            self._reset(self._down, exchange.down_id, ErrorCodes.ENHANCE_YOUR_CALM)
            self._forget(exchange)

    def _from_host(self, event: Event) -> None:
        exchange = self._by_up.get(getattr(event, "stream_id", None) or 0)
        if isinstance(event, DataReceived):
            length = event.flow_controlled_length or 0
            if exchange is None:
                self._up.connection.acknowledge_received_data(length, event.stream_id)
            else:
                exchange.down.waiting.append((event.data or b"", length))
        elif exchange is None:
            return
        elif isinstance(event, InformationalResponseReceived):
            self._down.connection.send_headers(exchange.down_id, event.headers or [])
        elif isinstance(event, ResponseReceived):
            is_all = event.stream_ended is not None
            self._down.connection.send_headers(exchange.down_id, event.headers or [], end_stream=is_all)
            exchange.down.has_ended = is_all
        elif isinstance(event, TrailersReceived):
            exchange.down.trailers = event.headers
        elif isinstance(event, StreamEnded):
            exchange.down.is_ending = True
            self._settle(exchange)
        elif isinstance(event, StreamReset):
            self._host_reset(exchange, event.error_code or 0)

    def _host_reset(self, exchange: _Exchange, code: int) -> None:
        """After a whole answer it only means that the rest of the request is not wanted."""
        if exchange.down.is_ending and code == ErrorCodes.NO_ERROR:
            exchange.up = _Way(has_ended=True)
            self._settle(exchange)
            return
        self._reset(self._down, exchange.down_id, code)
        self._forget(exchange)

    async def _send(self, side: Side) -> None:
        """Send on what waits for a side, as its windows and its transport allow."""
        transport = side.writer.transport
        while True:
            await side.wake.wait()
            side.wake.clear()
            while self._send_round(side):
                if transport.get_write_buffer_size() > WRITE_AHEAD_BYTES:
                    async with asyncio.timeout(IDLE_SECONDS):
                        await side.writer.drain()
            for each in (self._down, self._up):
                each.flush()

    def _send_round(self, side: Side) -> bool:
        """One frame of each stream; whether there was any."""
        is_down = side is self._down
        has_sent = False
        for exchange in list(self._by_down.values()):
            number = exchange.down_id if is_down else exchange.up_id
            if number is not None:
                has_sent |= self._send_frame(side, exchange, number, exchange.down if is_down else exchange.up)
        if has_sent:
            for each in (self._down, self._up):
                each.flush()
        return has_sent

    def _send_frame(self, side: Side, exchange: _Exchange, number: int, way: _Way) -> bool:
        if way.has_ended:
            return False
        connection = side.connection
        if way.waiting:
            data, length = way.waiting[0]
            most = min(connection.local_flow_control_window(number), connection.max_outbound_frame_size)
            if data and most <= 0:
                return False
            if data:
                connection.send_data(number, data[:most])
            if len(data) > most:
                way.waiting[0] = (data[most:], length)
            else:
                way.waiting.popleft()
                self._acknowledge(side, exchange, length)
            return True
        if not way.is_ending:
            return False
        if way.trailers is not None:
            connection.send_headers(number, way.trailers, end_stream=True)
        else:
            connection.end_stream(number)
        way.has_ended = True
        self._settle(exchange)
        return True

    def _acknowledge(self, side: Side, exchange: _Exchange, length: int) -> None:
        source, number = (self._up, exchange.up_id) if side is self._down else (self._down, exchange.down_id)
        if length and number is not None:
            source.connection.acknowledge_received_data(length, number)

    def _settle(self, exchange: _Exchange) -> None:
        """Forget it when its answer is whole; what is left of the request is not wanted then."""
        if exchange.down.has_ended and exchange.down.is_ending:
            if not exchange.up.has_ended and exchange.up_id is not None:
                self._reset(self._up, exchange.up_id, ErrorCodes.CANCEL)
                self._reset(self._down, exchange.down_id, ErrorCodes.NO_ERROR)
            self._forget(exchange)

    def _forget(self, exchange: _Exchange) -> None:
        """What waited in it is acknowledged: the windows of the connections are everybody's."""
        for side, way in ((self._up, exchange.up), (self._down, exchange.down)):
            for _, length in way.waiting:
                self._acknowledge(side, exchange, length)
            way.waiting.clear()
        self._by_down.pop(exchange.down_id, None)
        if not self._by_down:
            self._is_idle.set()
        if exchange.up_id is not None:
            self._by_up.pop(exchange.up_id, None)

    def _reset(self, side: Side, number: int, code: int) -> None:
        try:
            side.connection.reset_stream(number, code)
        except ProtocolError:
            log.debug("egress_stream_gone", stream=number)
