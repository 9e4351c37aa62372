"""One HTTP/1.1 request with its answer, passed on piece by piece; after an upgrade bytes both ways."""

import asyncio
import contextlib
from collections.abc import Sequence

import h11

from sandyard_runner.egress.requests import Body, Refused, check_host, with_length, without_hop
from sandyard_runner.egress.substitution import Headers, Substitution, Unfit
from sandyard_runner.egress.upstreams import READ_BYTES, Stream

HEAD_SECONDS = 30.0
IDLE_SECONDS = 600.0
LINGER_SECONDS = 2.0
"""For what a client still sends that has its answer: closed at once, it might never read that."""


class Downstream:
    """The sandbox's end of a connection."""

    def __init__(self, stream: Stream, first: bytes = b"") -> None:
        self.reader, self.writer = stream
        self.connection = h11.Connection(h11.SERVER)
        if first:
            self.connection.receive_data(first)

    async def head(self) -> h11.Request | None:
        """The request; `None` when the client hung up. Raises `Refused`."""
        try:
            async with asyncio.timeout(HEAD_SECONDS):
                event = await next_event(self.connection, self.reader)
        except h11.RemoteProtocolError as error:
            raise Refused(400, str(error)) from error
        return event if isinstance(event, h11.Request) else None

    async def refuse(self, refused: Refused) -> None:
        """Answer with the reason, unless an answer has begun."""
        if self.connection.our_state not in (h11.IDLE, h11.SEND_RESPONSE, h11.ERROR):
            return
        body = f"{refused}\n".encode()
        head = f"HTTP/1.1 {refused.status} Sandyard\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
        self.writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)
        await self.writer.drain()
        await self.linger()

    async def linger(self) -> None:
        """Take what the client still sends, for a moment."""
        if self.connection.their_state in (h11.DONE, h11.CLOSED, h11.MUST_CLOSE, h11.SWITCHED_PROTOCOL):
            return
        with contextlib.suppress(OSError):
            async with asyncio.timeout(LINGER_SECONDS):
                while await self.reader.read(READ_BYTES):
                    pass


async def exchange(
    down: Downstream,
    request: h11.Request,
    upstream: Stream,
    substitution: Substitution,
    *,
    host: str,
    extra: Sequence[tuple[str, str]] = (),
) -> None:
    """Send the request on, to the host that the connection is for, and its answer back; `upstream` is closed.

    `extra` are headers for the next hop. Raises `Refused`.
    """
    client = h11.Connection(h11.CLIENT)
    try:
        head, body = _outgoing(request, substitution, host, extra)
        if down.connection.they_are_waiting_for_100_continue:
            await _send(down.connection, down.writer, h11.InformationalResponse(status_code=100, headers=[]))
        await _both(
            asyncio.create_task(_send_request(down, client, upstream[1], head, body, substitution)),
            asyncio.create_task(_send_answer(client, upstream[0], down)),
            host,
        )
        if client.our_state is h11.SWITCHED_PROTOCOL:
            down.writer.write(client.trailing_data[0])
            upstream[1].write(down.connection.trailing_data[0])
            await carry((down.reader, down.writer), upstream)
        else:
            await down.linger()
    finally:
        upstream[1].close()


async def _both(sending: "asyncio.Task[None]", answering: "asyncio.Task[None]", host: str) -> None:
    """To the end of the answer, which may come before the end of the request."""
    try:
        await asyncio.wait((sending, answering), return_when=asyncio.FIRST_EXCEPTION)
        if not answering.done() and isinstance(failure := sending.exception(), OSError):
            # The host reads no further. It may have said why.
            await asyncio.wait((answering,))
        elif not answering.done():
            raise failure or ConnectionError("cut short")
        await answering
    except h11.RemoteProtocolError as error:
        raise Refused(502, f"{host} answered with what is no HTTP/1.1") from error
    finally:
        for task in (sending, answering):
            task.cancel()
        await asyncio.gather(sending, answering, return_exceptions=True)


def _outgoing(
    request: h11.Request, substitution: Substitution, host: str, extra: Sequence[tuple[str, str]]
) -> tuple[h11.Request, Body]:
    """The head as it is sent on, if its length does not change, and the body's treatment."""
    said = dict(request.headers)
    if substitution:
        check_host(said.get(b"host", b""), host)
    headers = without_hop(request.headers.raw_items())
    dropped = {b"expect"}
    upgrade = said.get(b"upgrade")
    if upgrade is not None and upgrade.lower() == b"h2c":  # a server may ignore it; what follows we could not read
        upgrade = None
        dropped.add(b"http2-settings")
    headers = [(name, value) for name, value in headers if name not in dropped]
    body = Body.of(headers, substitution)
    connection = [(b"connection", b"close")]
    if upgrade is not None:
        connection = [(b"connection", b"upgrade"), (b"upgrade", upgrade)]
    more = [(name.lower().encode(), value.encode()) for name, value in extra]
    try:
        headers = [*substitution.headers(headers), *connection, *more]
        head = h11.Request(method=request.method, target=substitution.target(request.target), headers=headers)
    except Unfit as error:
        raise Refused(400, str(error)) from error
    except h11.LocalProtocolError:
        # Its own words might have the value in them.
        raise Refused(400, "with its secrets in place this request is no valid HTTP") from None
    return head, body


async def _send_request(
    down: Downstream,
    client: h11.Connection,
    writer: asyncio.StreamWriter,
    head: h11.Request,
    body: Body,
    substitution: Substitution,
) -> None:
    if not body.is_whole:
        await _send(client, writer, head)
    while isinstance(event := await next_event(down.connection, down.reader), h11.Data):
        if piece := body.feed(event.data):
            await _send(client, writer, h11.Data(piece))
    last = body.end()
    if body.is_whole:
        headers: Headers = with_length(head.headers.raw_items(), len(last))
        await _send(client, writer, h11.Request(method=head.method, target=head.target, headers=headers))
    if last:
        await _send(client, writer, h11.Data(last))
    trailers = event.headers.raw_items() if isinstance(event, h11.EndOfMessage) else []
    try:
        await _send(client, writer, h11.EndOfMessage(headers=substitution.headers(trailers)))
    except Unfit as error:
        raise Refused(400, str(error)) from error


async def _send_answer(client: h11.Connection, reader: asyncio.StreamReader, down: Downstream) -> None:
    while True:
        event = await next_event(client, reader)
        if isinstance(event, h11.Response):
            headers = [(name, value) for name, value in event.headers.raw_items() if name.lower() != b"connection"]
            event = h11.Response(
                status_code=event.status_code, reason=event.reason, headers=[*headers, (b"Connection", b"close")]
            )
        if isinstance(event, h11.InformationalResponse) and event.status_code == 100:
            continue
        if event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
            return
        await _send(down.connection, down.writer, event)
        if isinstance(event, h11.EndOfMessage) or client.our_state is h11.SWITCHED_PROTOCOL:
            return


async def next_event(connection: h11.Connection, reader: asyncio.StreamReader) -> object:
    """What the other side says next. Raises `TimeoutError`, `h11.RemoteProtocolError`."""
    while (event := connection.next_event()) is h11.NEED_DATA:
        async with asyncio.timeout(IDLE_SECONDS):
            connection.receive_data(await reader.read(READ_BYTES))
    return event


async def _send(connection: h11.Connection, writer: asyncio.StreamWriter, event: object) -> None:
    data = connection.send(event)  # type: ignore[call-overload]  # an event of the other side
    if data:
        writer.write(data)
        async with asyncio.timeout(IDLE_SECONDS):
            await writer.drain()


async def carry(one: Stream, other: Stream) -> None:
    """Bytes both ways until both sides ended or nothing moved for long; `other` is closed."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            async with asyncio.timeout(IDLE_SECONDS):
                chunk = await reader.read(READ_BYTES)
            if not chunk:
                break
            writer.write(chunk)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    copies = [asyncio.create_task(copy(one[0], other[1])), asyncio.create_task(copy(other[0], one[1]))]
    try:
        with contextlib.suppress(OSError):
            await asyncio.gather(*copies)
    finally:
        for task in copies:
            task.cancel()
        await asyncio.gather(*copies, return_exceptions=True)
        other[1].close()
