"""One HTTP request carried to a peer and its answer carried back, both as they come."""

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus

import msgspec

from sandyard_daemon.wire import OWN_ERROR_HEADER
from sandyard_proxy.asgi import Headers, Message, Receive, Send, end_to_end, header
from sandyard_proxy.connection import HttpConnection, ResponseHead
from sandyard_proxy.errors import BrokenExchange, NotDelivered

OWN_ERROR = OWN_ERROR_HEADER.lower().encode()
Lend = Callable[[], AbstractAsyncContextManager[HttpConnection]]
"""Gives a connection for one exchange."""


class Outgoing(msgspec.Struct, frozen=True):
    """A request as the peer shall see it. Headers are end-to-end ones, without framing."""

    method: str
    target: bytes
    headers: Headers


class _Upload(msgspec.Struct):
    """The client's side while its request is carried over."""

    chunked: bool
    more: bool
    client_gone: bool = False


class ClientGone(Exception):
    """The client went away; nobody is left to answer."""


async def forward(
    receive: Receive, send: Send, lend: Lend, outgoing: Outgoing, rewrite: Callable[[ResponseHead], Headers]
) -> int:
    """Carry one exchange; returns the peer's status. `rewrite` makes the answer's headers.

    Nothing is sent to the client before the peer's answer has begun, so on `DoorUnreachable` (`BrokenExchange` among
    them) the caller may still answer, unless it came after that: then the answer is cut off, which the client sees.
    Raises `ClientGone` when the client left first.
    """
    first = await receive()
    if first["type"] == "http.disconnect":
        raise ClientGone
    async with lend() as connection:
        headers, upload = _framing(outgoing.headers, first)
        await connection.send_head(outgoing.method, outgoing.target, headers, _piece(upload, first.get("body", b"")))
        watcher = asyncio.create_task(_carry_up(receive, connection, upload))
        try:
            head = await connection.head()
            await send({"type": "http.response.start", "status": head.status, "headers": rewrite(head)})
            await _carry_down(connection, send)
        except BrokenExchange:
            if upload.client_gone:
                raise ClientGone from None
            raise
        finally:
            watcher.cancel()
            await asyncio.wait({watcher})
            if upload.more:
                connection.close()  # half a request was sent; nothing else can follow it
    return head.status


def refuse_stale(head: ResponseHead) -> None:
    """Raise `NotDelivered` when a daemon refused our secret: it is of an earlier start.

    Its other 401s, like those of a git remote, have codes of their own and are the client's to see.
    """
    if head.status == HTTPStatus.UNAUTHORIZED and header(head.headers, OWN_ERROR) == b"UNAUTHORIZED":
        raise NotDelivered("bad gateway: the sandbox was restarted just now; try again")


def answer_headers(head: ResponseHead) -> Headers:
    """The answer's headers as they may pass a proxy."""
    return end_to_end(head.headers)


def _framing(headers: Headers, first: Message) -> tuple[Headers, _Upload]:
    """Headers with the framing of the body: its length where the client told it, else chunks, else none."""
    more = bool(first.get("more_body"))
    if header(headers, b"content-length") is not None or not (more or first.get("body")):
        return headers, _Upload(chunked=False, more=more)
    return [*headers, (b"transfer-encoding", b"chunked")], _Upload(chunked=True, more=more)


def _piece(upload: _Upload, body: bytes) -> bytes:
    """The next bytes of the body in its framing, with the end of it where there is no more."""
    if not upload.chunked:
        return body
    piece = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
    return piece if upload.more else piece + b"0\r\n\r\n"


async def _carry_up(receive: Receive, connection: HttpConnection, upload: _Upload) -> None:
    """The rest of the request's body; then wait for the client's end, which ends the exchange."""
    with contextlib.suppress(BrokenExchange):  # the peer may answer, and close, without reading everything
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                upload.client_gone = True
                connection.close()
                return
            if upload.more:
                upload.more = bool(message.get("more_body"))
                await connection.write(_piece(upload, message.get("body", b"")))


async def _carry_down(connection: HttpConnection, send: Send) -> None:
    while chunk := await connection.read():
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
