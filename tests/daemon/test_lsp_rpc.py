"""The conversation with a language server, at its two ends of one socket pair."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sandyard_daemon.errors import BadRequest, Internal, RequestTimeout
from sandyard_daemon.lsp.rpc import MAX_UNSENT, Connection


class Peer:
    """The server's end."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self.ended: list[str] = []

    async def open(self) -> None:
        self.reader, self.writer = await asyncio.open_connection(sock=self._end)

    async def read(self) -> Any:
        head = await self.reader.readuntil(b"\r\n\r\n")
        return json.loads(await self.reader.readexactly(int(head.split(b":")[1])))

    def write(self, message: dict[str, Any], *, split: int = 0) -> None:
        body = json.dumps(message).encode()
        data = b"Content-Length: %d\r\nContent-Type: application/vscode-jsonrpc\r\n\r\n" % len(body) + body
        self.writer.write(data[:split])
        self.writer.write(data[split:])


@pytest.fixture
async def ends() -> AsyncIterator[tuple[Connection, Peer]]:
    ours, theirs = socket.socketpair()
    peer = Peer(theirs)
    connection = Connection(ours, answers={}, heard=lambda method, params: None, ended=peer.ended.append)
    await connection.open()
    await peer.open()
    yield connection, peer
    await connection.close()
    peer.writer.close()


async def test_answers_find_their_questions_in_any_order(ends: tuple[Connection, Peer]) -> None:
    connection, peer = ends
    asked = [asyncio.ensure_future(connection.request("m", number, 10)) for number in range(3)]
    messages = [await peer.read() for _ in asked]
    for message in reversed(messages):
        peer.write({"id": message["id"], "result": message["params"]}, split=7)
    assert await asyncio.gather(*asked) == [0, 1, 2]


async def test_d35_a_question_ends_at_its_deadline_and_is_called_off(ends: tuple[Connection, Peer]) -> None:
    connection, peer = ends
    with pytest.raises(RequestTimeout) as refused:
        await connection.request("slow", None, 0.01)
    assert (refused.value.status, refused.value.code) == (408, "REQUEST_TIMEOUT")
    number = (await peer.read())["id"]
    called_off = await peer.read()
    assert (called_off["method"], called_off["params"]) == ("$/cancelRequest", {"id": number})
    peer.write({"id": number, "result": "too late"})
    asked = asyncio.ensure_future(connection.request("next", None, 10))
    peer.write({"id": (await peer.read())["id"], "result": "in time"})
    assert await asked == "in time"


async def test_a_question_whose_client_left_is_called_off(ends: tuple[Connection, Peer]) -> None:
    connection, peer = ends
    asked = asyncio.ensure_future(connection.request("m", None, 10))
    number = (await peer.read())["id"]
    asked.cancel()
    assert (await peer.read())["params"] == {"id": number}


async def test_the_end_fails_whoever_waits_and_is_told_once(ends: tuple[Connection, Peer]) -> None:
    connection, peer = ends
    asked = asyncio.ensure_future(connection.request("m", None, 10))
    await peer.read()
    peer.writer.close()
    with pytest.raises(Internal, match="closed its output"):
        await asked
    with pytest.raises(Internal):
        await connection.notify("m", None, 10)
    await connection.close()
    assert len(peer.ended) == 1


async def test_an_error_is_a_bad_request_with_the_servers_words(ends: tuple[Connection, Peer]) -> None:
    connection, peer = ends
    asked = asyncio.ensure_future(connection.request("m", None, 10))
    peer.write({"id": (await peer.read())["id"], "error": {"code": 1, "message": "not like this"}})
    with pytest.raises(BadRequest, match="not like this"):
        await asked


async def test_a_server_that_does_not_read_is_given_up_before_memory_is(ends: tuple[Connection, Peer]) -> None:
    connection, peer = ends
    piece = "x" * (MAX_UNSENT // 4)
    for _ in range(4):
        with pytest.raises(RequestTimeout):
            await connection.notify("m", piece, 0.01)
    with pytest.raises(Internal):
        await connection.notify("m", piece, 10)
    assert "unread" in peer.ended[0]
