import asyncio
import json
import os
import socket
import struct
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sandyard import protocols
from sandyard.protocols import HttpProtocol, Lingering
from sandyard.scopes import HANG_UP
from sandyard.serving import listen_tcp, listen_unix, serve, sockets_directory


async def _hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


async def test_an_application_is_served_until_the_block_ends() -> None:
    listener = listen_tcp("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    async with serve(_hello, listener), aiohttp.ClientSession() as session, session.get(url) as answer:
        assert await answer.read() == b"hello"
    with pytest.raises(OSError, match=r".*"):
        await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1].strip("/")))


async def test_a_unix_socket_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "own.sock"
    async with serve(_hello, listen_unix(path), websockets=False):
        assert path.stat().st_mode & 0o077 == 0
        connector = aiohttp.UnixConnector(path=str(path))
        async with aiohttp.ClientSession(connector=connector) as session, session.get("http://x/") as answer:
            assert answer.status == 200


def test_a_taken_port_is_named() -> None:
    with listen_tcp("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(OSError, match=f"127.0.0.1:{port}"):
            listen_tcp("127.0.0.1", port)


def test_sockets_fit_their_addresses_whatever_the_temporary_directory_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with sockets_directory() as directory:
        listen_unix(directory / "internal.sock").close()
    assert not directory.exists()


async def converse(port: int, *parts: bytes) -> tuple[int, dict[str, Any]]:
    """Status and body of the answer to these bytes, sent for as long as they are taken. Fails unless it ends."""
    async with asyncio.timeout(60):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
        except ConnectionError:
            pass  # answered and closed before we were done
        try:
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.close()
    assert b"content-type: application/json" in head, head
    told: dict[str, Any] = json.loads(body)
    return int(head.split()[1]), told


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """Where the application of these tests is served."""
    listener = listen_tcp("127.0.0.1", 0)
    async with serve(_hello, listener):
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\nBad Header: x\r\n\r\n", 400),
        (b"GARBAGE\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        (b"GET /" + b"a" * 66_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET /?q=" + b"a" * 66_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    ],
)
async def test_what_is_no_request_is_told_so_in_json(port: int, request_bytes: bytes, status: int) -> None:
    found, told = await converse(port, request_bytes)
    assert (found, told["statusCode"]) == (status, status)
    assert set(told) == {"statusCode", "message", "code", "source", "error", "path", "method", "timestamp"}


async def test_a_client_that_tries_tls_first_leaves_no_line_in_the_log(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    _, told = await converse(port, b"\x16\x03\x01\x02\x00\x01\x00")
    assert (told["message"], caplog.records) == ("This port takes plain http", [])
    await converse(port, b"GARBAGE\r\n\r\n")
    assert caplog.records != []


ENDLESS = [b"x" * 65_536] * 1_000


@pytest.mark.parametrize(
    "beginning",
    [b"GET / HTTP/1.1\r\nX: ", b"GET / HTTP/1.1\r\n", b"GET /"],
    ids=["header value", "header name", "path"],
)
async def test_a_head_without_end_is_cut_off(port: int, beginning: bytes) -> None:
    status, _ = await converse(port, beginning, *ENDLESS)
    assert status in (400, 414, 431)


async def test_many_headers_are_too_many(port: int) -> None:
    status, _ = await converse(port, b"GET / HTTP/1.1\r\n", *[b"a: b\r\n" * 10_000] * 1_000)
    assert status == 431


async def test_a_head_of_seventy_kilobytes_is_read(port: int) -> None:
    url, headers = f"http://127.0.0.1:{port}/", {f"X-{number}": "x" * 7_000 for number in range(10)}
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        assert answer.status == 200


async def test_trailers_without_end_are_cut_off() -> None:
    async def patient(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass

    listener = listen_tcp("127.0.0.1", 0)
    async with serve(patient, listener):
        beginning = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX: "
        status, _ = await converse(listener.getsockname()[1], beginning, *ENDLESS)
    assert status in (400, 431)


async def test_a_head_that_does_not_come_is_not_waited_for(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HttpProtocol, "head_seconds", 0.2)
    for beginning in (b"", b"GET / HTTP/1.1\r\nHost: x\r\n"):
        status, told = await converse(port, beginning)
        assert (status, told["code"]) == (408, "REQUEST_TIMEOUT")


async def test_a_connection_that_is_kept_waits_as_long_as_it_is_kept(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline of the first head is over with the head; the next begins with the next request's first byte."""
    monkeypatch.setattr(HttpProtocol, "head_seconds", 2)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
        for _ in range(2):
            async with session.get(f"http://127.0.0.1:{port}/") as answer:
                assert await answer.read() == b"hello"
            await asyncio.sleep(2.5)  # that nothing happens meanwhile is what is looked at
        async with session.get(f"http://127.0.0.1:{port}/") as answer:
            assert answer.status == 200


WEBSOCKET = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
)


@pytest.mark.parametrize(
    ("head", "answer"),
    [
        (b"POST /silent HTTP/1.1\r\nContent-Length: 4000000\r\n", b""),
        (b"POST / HTTP/1.1\r\nContent-Length: 4000000\r\n", b"hello"),
        (b"GET / HTTP/1.1\r\n" + WEBSOCKET, b"hello"),
    ],
    ids=["before the answer", "within it", "WebSocket"],
)
async def test_who_is_hung_up_on_while_sending_gets_what_was_said_and_then_the_end(head: bytes, answer: bytes) -> None:
    """No reset: clients take it for something else, and it loses what they have not read yet."""
    has_hung_up = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": "hello"})
        elif scope["path"] != "/silent":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
            await send({"type": "http.response.body", "body": b"hello", "more_body": True})
        scope[HANG_UP]()
        scope[HANG_UP]()
        has_hung_up.set()
        while not (await receive())["type"].endswith(".disconnect"):
            pass

    seen = await send_on(app, has_hung_up, head)
    assert seen.endswith(answer)
    assert bool(seen) == bool(answer)


@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/1.1"])
async def test_an_answer_before_the_body_is_read_on_a_connection_that_is_not_kept(version: bytes) -> None:
    """As a refusal of an upload by urllib, which keeps none."""
    has_answered = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 413, "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": b"large"})
        has_answered.set()

    head = b"POST / " + version + b"\r\nContent-Length: 4000000\r\nConnection: close\r\n"
    seen = await send_on(app, has_answered, head)
    assert (seen.split()[1], seen[-5:]) == (b"413", b"large")


async def send_on(app: Any, is_done: asyncio.Event, head: bytes) -> bytes:
    """What a client of `app` reads that sends four megabytes when `is_done`. Raises what it meets but an end."""
    listener, loop, seen = listen_tcp("127.0.0.1", 0), asyncio.get_running_loop(), b""
    async with asyncio.timeout(20), serve(app, listener):
        with socket.create_connection(listener.getsockname()) as client:
            client.setblocking(False)
            await loop.sock_sendall(client, head + b"Host: x\r\n\r\n")
            await is_done.wait()
            await loop.sock_sendall(client, b"x" * 4_000_000)
            while part := await loop.sock_recv(client, 65_536):
                seen += part
    return seen


async def test_who_goes_on_sending_is_listened_to_longer_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    class Transport(asyncio.Transport):
        closed_at = 0.0

        def can_write_eof(self) -> bool:
            return False

        def close(self) -> None:
            self.closed_at = self.closed_at or loop.time()

    async def closed(heard_for: float) -> float:
        """Seconds until the connection is closed when something is heard for so long."""
        transport, began = Transport(), loop.time()
        lingering = Lingering(transport, loop)
        while not transport.closed_at:
            await asyncio.sleep(0)
            if loop.time() < began + heard_for:
                lingering.heard()
        return transport.closed_at - began

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(protocols, "LINGER_SECONDS", 0.2)
    monkeypatch.setattr(protocols, "MAX_LINGER_SECONDS", 0.5)
    assert await closed(heard_for=0) >= 0.2
    assert await closed(heard_for=0.25) >= 0.25
    async with asyncio.timeout(20):
        assert await closed(heard_for=60) >= 0.5


@pytest.mark.parametrize("more", [WEBSOCKET, b"Content-Length: 4000000\r\n"], ids=["WebSocket", "HTTP"])
async def test_a_server_ends_in_order_while_somebody_lingers_who_was_hung_up_on(
    more: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocols, "LINGER_SECONDS", 600)
    has_left = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
        scope[HANG_UP]()
        while not (await receive())["type"].endswith(".disconnect"):
            pass
        has_left.set()

    listener, loop = listen_tcp("127.0.0.1", 0), asyncio.get_running_loop()
    async with asyncio.timeout(20):
        with socket.create_connection(listener.getsockname()) as client:
            client.setblocking(False)
            async with serve(app, listener):
                await loop.sock_sendall(client, b"GET / HTTP/1.1\r\nHost: x\r\n" + more + b"\r\n")
                while await loop.sock_recv(client, 65_536):
                    pass
    assert has_left.is_set()


TWO = b"GET /first HTTP/1.1\r\nHost: x\r\n\r\nGET /second HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("way", ["client leaves", "hung up on", "garbage behind"])
async def test_the_first_of_two_requests_is_told_that_its_client_is_gone(
    way: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Also while the second waits behind it on the same connection."""
    has_begun, has_left = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["path"] == "/first"
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        has_begun.set()
        if way == "hung up on":
            scope[HANG_UP]()
        while (await receive())["type"] != "http.disconnect":
            pass
        await send({"type": "http.response.body", "body": b"too late"})
        has_left.set()

    listener, loop = listen_tcp("127.0.0.1", 0), asyncio.get_running_loop()
    async with asyncio.timeout(20), serve(app, listener):
        with socket.create_connection(listener.getsockname()) as client:
            client.setblocking(False)
            await loop.sock_sendall(client, TWO)
            await has_begun.wait()
            if way == "client leaves":
                client.close()
            elif way == "garbage behind":
                await loop.sock_sendall(client, b"\0garbage\r\n\r\n")
            await has_left.wait()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_client_that_asks_whether_to_send_can_be_hung_up_on(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope[HANG_UP]()
        while (await receive())["type"] != "http.disconnect":
            pass

    listener, loop = listen_tcp("127.0.0.1", 0), asyncio.get_running_loop()
    async with asyncio.timeout(20), serve(app, listener):
        with socket.create_connection(listener.getsockname()) as client:
            client.setblocking(False)
            head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
            await loop.sock_sendall(client, head)
            assert await loop.sock_recv(client, 100) == b""
    assert caplog.records == []


async def test_a_client_that_has_reset_its_connection_is_let_go_of() -> None:
    goes_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await goes_on.wait()
        scope[HANG_UP]()

    listener, loop = listen_tcp("127.0.0.1", 0), asyncio.get_running_loop()
    before = len(os.listdir("/proc/self/fd"))
    async with asyncio.timeout(20), serve(app, listener):
        client = socket.create_connection(listener.getsockname())
        client.setblocking(False)
        # More than is read before the application asks for it: so nothing of the reset is noticed.
        await loop.sock_sendall(
            client, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n" + b"x" * 300_000
        )
        await asyncio.sleep(0.1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        await asyncio.sleep(0.1)
        goes_on.set()
        while len(os.listdir("/proc/self/fd")) > before:  # noqa: ASYNC110  a descriptor has no event
            await asyncio.sleep(0.05)
