"""The daemon's end of a WebSocket, against a client on a real socket."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from sandyard_daemon.client import connect_door
from sandyard_daemon.errors import DaemonError
from sandyard_daemon.http.messages import Answer, Request, Response, Switched
from sandyard_daemon.http.server import Server
from sandyard_daemon.http.websocket import Disconnected, WebSocket, offered_subprotocols
from tests.contract.wire_client import Message
from tests.contract.wire_client import WebSocket as Client


class Echo:
    """Sends back what comes; the message `end` closes with a code and a reason."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()

    async def __call__(self, request: Request) -> Answer:
        offered = offered_subprotocols(request)
        try:
            socket = await WebSocket.accept(request, offered[-1] if offered else None, max_message=100_000)
        except DaemonError as error:
            return Response(error.status, error.message.encode())
        try:
            while (message := await socket.receive()) != "end":
                await socket.send(message)
            await socket.close(4008, "é" * 100)
        except Disconnected:
            self.gone.set()
        return Switched()


@pytest.fixture
async def echo(tmp_path: Path) -> AsyncIterator[Echo]:
    dispatch = Echo()
    server = Server(dispatch)
    await server.listen(str(tmp_path / "door.sock"))
    yield dispatch
    await server.close(0.2)


async def talk(tmp_path: Path, conversation: Callable[[Client], object], *protocols: str) -> object:
    """Run a blocking conversation beside the server."""

    def run() -> object:
        with Client("ws://x/echo?a=b", protocols=protocols, connected=connect_door(tmp_path / "door.sock")) as client:
            return conversation(client)

    return await asyncio.to_thread(run)


async def test_messages_of_both_kinds_come_back_and_the_close_has_code_and_reason(tmp_path: Path, echo: Echo) -> None:
    def conversation(client: Client) -> list[Message]:
        for message in ("text", b"\0bytes", "x" * 100_000, "end"):
            client.send(message)
        found = list(client.messages())
        assert client.close_code == 4008
        assert client.close_reason == "é" * 61
        assert client.subprotocol == "two"
        return found

    answers = await talk(tmp_path, conversation, "one", "two")
    assert [(each.data, each.is_text) for each in answers] == [  # type: ignore[attr-defined]
        (b"text", True),
        (b"\0bytes", False),
        (b"x" * 100_000, True),
    ]


async def test_a_ping_is_answered_and_a_client_that_vanishes_is_noticed(tmp_path: Path, echo: Echo) -> None:
    def conversation(client: Client) -> None:
        client.ping(b"here")
        client.send("after")
        next(client.messages())
        assert client.pongs == [b"here"]
        client.cut()

    await talk(tmp_path, conversation)
    async with asyncio.timeout(60):
        await echo.gone.wait()


async def test_a_message_beyond_the_limit_ends_the_connection(tmp_path: Path, echo: Echo) -> None:
    def conversation(client: Client) -> None:
        client.send(b"x" * 100_001)
        assert list(client.messages()) == []
        assert client.close_code == 1009

    await talk(tmp_path, conversation)
    async with asyncio.timeout(60):
        await echo.gone.wait()


async def test_a_plain_request_is_refused(tmp_path: Path, echo: Echo) -> None:
    def ask() -> bytes:
        connection = connect_door(tmp_path / "door.sock")
        connection.settimeout(60)
        connection.sendall(b"GET /echo HTTP/1.1\r\nhost: x\r\n\r\n")
        answer = connection.recv(65536)
        connection.sendall(b"GET /echo HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        answer += connection.recv(65536)
        connection.close()
        return answer

    answer = await asyncio.to_thread(ask)
    assert answer.count(b"HTTP/1.1 400") == 2
