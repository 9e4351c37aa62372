"""The HTTP client towards doors, driven with raw bytes through a transport that only records."""

import asyncio

import pytest

from sandyard_proxy.connection import HIGH_WATER, LOW_WATER, MAX_HEAD_BYTES, HttpConnection
from sandyard_proxy.errors import BrokenExchange


class RecordingTransport(asyncio.Transport):
    """Keeps what is written and what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False
        self.reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


async def begin(method: str = "GET") -> tuple[HttpConnection, RecordingTransport]:
    """A connection with one request on its way."""
    connection, transport = HttpConnection(), RecordingTransport()
    connection.connection_made(transport)
    await connection.send_head(method, b"/a%2Fb?c", [(b"host", b"sandbox")], b"body")
    return connection, transport


async def body_of(connection: HttpConnection) -> bytes:
    """The whole body."""
    body = b""
    while chunk := await connection.read():
        body += chunk
    return body


async def test_the_request_goes_out_in_one_piece_as_it_is() -> None:
    _, transport = await begin()
    assert transport.written == b"GET /a%2Fb?c HTTP/1.1\r\nhost: sandbox\r\n\r\nbody"


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
async def test_an_answer_cut_anywhere_is_read(size: int) -> None:
    connection, _ = await begin()
    raw = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX-A: 1\r\ntransfer-encoding: chunked\r\n\r\n"
    raw += b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    for start in range(0, len(raw), size):
        connection.data_received(raw[start : start + size])
    head = await connection.head()
    assert (head.status, head.headers[0]) == (200, (b"x-a", b"1"))
    assert await body_of(connection) == b"abcde"
    assert connection.reusable


async def test_an_answer_without_length_ends_with_its_connection() -> None:
    connection, _ = await begin()
    connection.data_received(b"HTTP/1.1 200 OK\r\n\r\nall")
    connection.connection_lost(None)
    assert (await connection.head()).status == 200
    assert await body_of(connection) == b"all"
    assert not connection.reusable


async def test_an_answer_that_breaks_off_is_told() -> None:
    connection, _ = await begin()
    connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")
    connection.connection_lost(None)
    assert await connection.read() == b"abc"
    with pytest.raises(BrokenExchange):
        await connection.read()


async def test_no_answer_at_all_is_told() -> None:
    connection, _ = await begin()
    connection.connection_lost(None)
    with pytest.raises(BrokenExchange):
        await connection.head()
    with pytest.raises(BrokenExchange):
        await connection.write(b"more")


async def test_the_answer_to_head_has_no_body_and_ends_the_connection() -> None:
    connection, _ = await begin("HEAD")
    connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n")
    assert (await connection.head()).status == 200
    assert await connection.read() == b""
    assert not connection.reusable


@pytest.mark.parametrize("raw", [b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n"])
async def test_what_is_not_http_closes_the_connection(raw: bytes) -> None:
    connection, transport = await begin()
    connection.data_received(raw)
    assert transport.closed


async def test_endless_headers_close_the_connection() -> None:
    connection, transport = await begin()
    connection.data_received(b"HTTP/1.1 200 OK\r\n")
    for _ in range(MAX_HEAD_BYTES // 1000 + 2):
        connection.data_received(b"x: " + b"y" * 1000 + b"\r\n")
    assert transport.closed


async def test_an_answer_nobody_asked_for_closes_the_connection() -> None:
    connection, transport = HttpConnection(), RecordingTransport()
    connection.connection_made(transport)
    connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    assert transport.closed


async def test_a_reader_that_does_not_come_holds_the_peer_back() -> None:
    connection, transport = await begin()
    connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n")
    piece = bytes(LOW_WATER)
    for _ in range(HIGH_WATER // LOW_WATER + 1):
        assert transport.reading
        connection.data_received(piece)
    assert not transport.reading
    for _ in range(HIGH_WATER // LOW_WATER):
        await connection.read()
    assert transport.reading


async def test_after_an_upgrade_bytes_pass_as_they_are() -> None:
    connection, transport = await begin()
    connection.data_received(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n\x81\x01a")
    assert (await connection.head()).status == 101
    assert await connection.read() == b"\x81\x01a"
    connection.data_received(b"HTTP/1.1 200 OK\r\n\r\n")
    assert await connection.read() == b"HTTP/1.1 200 OK\r\n\r\n"
    await connection.write(b"raw")
    assert transport.written.endswith(b"raw")
    connection.connection_lost(None)
    assert await connection.read() == b""


async def test_writing_waits_for_room() -> None:
    connection, _ = await begin()
    connection.pause_writing()
    writing = asyncio.create_task(connection.write(b"x"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not writing.done()
    connection.resume_writing()
    await asyncio.wait_for(writing, 30)
