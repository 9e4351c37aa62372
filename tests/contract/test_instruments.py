"""The tests' own instruments: readers that split as the SDKs do, a client that sees what a server really did."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn

from tests.contract import readers
from tests.contract.running import COMBINATIONS, EVERY_RUN, chosen_combinations
from tests.contract.wire_client import Refused, WebSocket, request

OUT, ERR = b"\x01\x01\x01", b"\x02\x02\x02"


def test_a_ruby_reader_drops_what_a_frame_does_not_label() -> None:
    frames = [OUT + b"one", b"lost", ERR + b"two" + OUT + b"three"]
    assert readers.ruby(frames) == {"out": b"onethree", "err": b"two"}
    assert readers.continuous(frames) == {"out": b"onelostthree", "err": b"two"}


def test_a_marker_may_span_two_frames_for_the_continuous_readers_only() -> None:
    frames = [OUT + b"a\x02", b"\x02\x02b"]
    assert readers.continuous(frames) == {"out": b"a", "err": b"b"}
    assert readers.ruby(frames)["err"] == b""


@pytest.mark.parametrize("frame", [OUT, b"bare", OUT + b"a" + ERR + b"b", OUT + b"x" * 40_000, OUT + "é".encode()[:1]])
def test_the_frame_rules_refuse_what_breaks_a_client(frame: bytes) -> None:
    with pytest.raises((AssertionError, UnicodeDecodeError)):
        readers.assert_frame_rules([frame])


def test_combinations_are_chosen_by_name() -> None:
    assert chosen_combinations({}) == list(EVERY_RUN)
    assert chosen_combinations({"SANDYARD_TEST_COMBINATIONS": "all"}) == list(COMBINATIONS)
    assert chosen_combinations({"SANDYARD_TEST_COMBINATIONS": "sqlite-redis-local"}) == ["sqlite-redis-local"]
    with pytest.raises(KeyError):
        chosen_combinations({"SANDYARD_TEST_COMBINATIONS": "oracle"})


async def _app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await receive()
        await send({"type": "http.response.start", "status": 418, "headers": [(b"x-kind", b"teapot")]})
        await send({"type": "http.response.body", "body": b'{"statusCode": 418}'})
        return
    await receive()
    if scope["path"] == "/refuse":
        await send({"type": "websocket.http.response.start", "status": 404, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b'{"statusCode": 404}'})
        return
    await send({"type": "websocket.accept", "subprotocol": next(iter(scope["subprotocols"]), None)})
    await send({"type": "websocket.send", "bytes": b"x" * 200_000})
    await send({"type": "websocket.send", "text": "end"})
    await send({"type": "websocket.close", "code": 1000, "reason": "done"})


@contextmanager
def _served() -> Iterator[str]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        server = uvicorn.Server(uvicorn.Config(_app, ws="wsproto", lifespan="off", log_level="error"))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
        thread.start()
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)


def test_the_client_sees_messages_close_codes_subprotocols_and_refusals() -> None:
    with _served() as host:
        with WebSocket(f"ws://{host}/", protocols=["one", "two"]) as connection:
            messages = list(connection.messages())
        assert [(len(message.data), message.is_text) for message in messages] == [(200_000, False), (3, True)]
        assert (connection.subprotocol, connection.close_code, connection.close_reason) == ("one", 1000, "done")
        with pytest.raises(Refused) as refused:
            WebSocket(f"ws://{host}/refuse")
        assert (refused.value.status, refused.value.body) == (404, b'{"statusCode": 404}')
        answer = request("POST", f"http://{host}/x?y", {"a": 1})
        assert (answer.status, answer.headers["x-kind"], answer.json()) == (418, "teapot", {"statusCode": 418})
