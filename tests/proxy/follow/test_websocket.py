"""The eight rules of sdk-wire.md 4.5 over a real server, and what happens when something breaks."""

import asyncio
from typing import Any

import aiohttp
import pytest

from sandyard_daemon.wire import Stream
from sandyard_daemon.wire.markers import demultiplex
from tests.proxy.conftest import Yard
from tests.proxy.doubles import SANDBOX, TOKEN, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "/process/session/s/command/c/logs?follow=true"


def connect(yard: Yard, path: str = PATH, **options: Any) -> Any:
    """A follower with the API key."""
    headers = yard.key | options.pop("headers", {})
    return yard.client.ws_connect(yard.toolbox + path, headers=headers, **options)


async def read_all(socket: aiohttp.ClientWebSocketResponse) -> tuple[list[bytes], int | None]:
    """Every message up to the close, and its code."""
    messages: list[bytes] = []
    async with asyncio.timeout(60):
        async for message in socket:
            assert message.type is aiohttp.WSMsgType.BINARY
            messages.append(message.data)
    return messages, socket.close_code


async def test_history_comes_first_then_live_output_then_a_normal_close(yard: Yard) -> None:
    log = yard.log()
    log.append(Stream.STDOUT, b"history\n")
    async with connect(yard) as socket:
        first = await socket.receive_bytes(timeout=30)
        await yard.runner.write("s", "c", Stream.STDERR, b"live\n")
        second = await socket.receive_bytes(timeout=30)
        await yard.runner.end("s", "c", 3)
        rest, code = await read_all(socket)
    assert [first, second, rest] == [b"\x01\x01\x01history\n", b"\x02\x02\x02live\n", []]
    assert code == 1000


async def test_a_finished_command_replays_its_whole_log_and_closes_without_a_lease(yard: Yard) -> None:
    log = yard.log()
    log.append(Stream.STDOUT, b"out\x00\xff")
    log.append(Stream.STDERR, b"err")
    log.finish(1)
    yard.runner.refuse = "no lease is needed"
    async with connect(yard) as socket:
        messages, code = await read_all(socket)
    assert demultiplex(messages) == (b"out\x00\xff", b"err")
    assert code == 1000


async def test_an_empty_log_of_a_finished_command_closes_without_a_message(yard: Yard) -> None:
    yard.log().finish(0)
    async with connect(yard) as socket:
        assert await read_all(socket) == ([], 1000)


async def test_messages_are_small_and_cut_at_characters_and_never_end_in_a_marker(yard: Yard) -> None:
    text = ("é€𝄞x" * 30_000).encode()
    log = yard.log()
    for start in range(0, len(text), 100_001):
        log.append(Stream.STDOUT, text[start : start + 100_001])
    log.finish()
    async with connect(yard) as socket:
        messages, _ = await read_all(socket)
    assert max(map(len, messages)) <= 32 * 1024
    for message in messages:
        message.decode("utf-8")
        assert message[:3] == b"\x01\x01\x01"
        assert len(message) > 3
    assert demultiplex(messages)[0] == text


async def test_data_that_looks_like_markers_survives(yard: Yard) -> None:
    out, err = b"\x01\x01\x01\x02\x02\x02\x01" * 50, b"\x02" * 9 + b"\x01" * 9
    log = yard.log()
    log.append(Stream.STDOUT, out)
    log.append(Stream.STDERR, err)
    log.finish()
    async with connect(yard) as socket:
        messages, _ = await read_all(socket)
    assert demultiplex(messages) == (out, err)


async def test_a_character_split_over_two_writes_is_not_split_over_messages(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its beginning is let go after a moment, and between our two writes the machine may take longer.
    monkeypatch.setattr("sandyard_proxy.follow.routes.HOLD_SECONDS", 60)
    yard.log()
    async with connect(yard) as socket:
        await yard.runner.write("s", "c", Stream.STDOUT, b"x\xe2\x82")
        first = await socket.receive_bytes(timeout=30)
        await yard.runner.write("s", "c", Stream.STDOUT, b"\xac")
        second = await socket.receive_bytes(timeout=30)
    assert [first, second] == [b"\x01\x01\x01x", b"\x01\x01\x01\xe2\x82\xac"]


async def test_the_beginning_of_a_character_is_not_held_for_ever(yard: Yard) -> None:
    yard.log()
    async with connect(yard) as socket:
        await yard.runner.write("s", "c", Stream.STDOUT, b"\xe2\x82")
        assert await socket.receive_bytes(timeout=30) == b"\x01\x01\x01\xe2\x82"


@pytest.mark.parametrize("offered", [("X-Daytona-SDK-Version~0.218.0",), ("other", "X-Daytona-SDK-Version~0.218.0")])
async def test_the_subprotocol_with_the_version_is_echoed(yard: Yard, offered: tuple[str, ...]) -> None:
    yard.log().finish()
    async with connect(yard, protocols=offered) as socket:
        assert socket.protocol == "X-Daytona-SDK-Version~0.218.0"


async def test_another_offered_subprotocol_is_echoed_too_and_none_when_none_is_offered(yard: Yard) -> None:
    yard.log().finish()
    async with connect(yard, protocols=("something",)) as socket:
        assert socket.protocol == "something"
    async with connect(yard) as socket:
        assert socket.protocol is None


async def test_a_browser_comes_with_token_and_version_in_url_and_subprotocol(yard: Yard) -> None:
    yard.log().append(Stream.STDOUT, b"x")
    yard.daemon.logs["s", "c"].finish()
    url = f"{yard.toolbox}{PATH}&DAYTONA_SANDBOX_AUTH_KEY={TOKEN}"
    protocols = ("X-Daytona-SDK-Version~0.20.0",)
    origin = "http://somewhere.example"
    async with yard.client.ws_connect(url, protocols=protocols, headers={"Origin": origin}) as socket:
        assert (await read_all(socket))[0] == [b"x"]  # before 0.27.0 there were no markers


@pytest.mark.parametrize(
    ("version", "expected"), [("0.26.9", b"text"), ("0.27.0", b"\x01\x01\x01text"), ("dev", b"\x01\x01\x01text")]
)
async def test_markers_depend_on_the_version(yard: Yard, version: str, expected: bytes) -> None:
    yard.log().append(Stream.STDOUT, b"text")
    yard.daemon.logs["s", "c"].finish()
    async with connect(yard, headers={"X-Daytona-SDK-Version": version}) as socket:
        assert (await read_all(socket))[0] == [expected]


async def test_java_gets_markers_and_a_lone_one_after_each_quiet_message(yard: Yard) -> None:
    yard.log()
    async with connect(yard, headers={"User-Agent": "okhttp/4.12.0"}) as socket:
        await yard.runner.write("s", "c", Stream.STDERR, b"quiet")
        assert await socket.receive_bytes(timeout=30) == b"\x02\x02\x02quiet"
        assert await socket.receive_bytes(timeout=30) == b"\x02\x02\x02"
        await yard.runner.write("s", "c", Stream.STDERR, b"ends in \x02")
        marked = [await socket.receive_bytes(timeout=30), await socket.receive_bytes(timeout=30)]
        assert demultiplex([*marked, b"\x01\x01\x01"]) == (b"", b"ends in \x02")


async def test_pings_are_answered_while_output_floods(yard: Yard) -> None:
    yard.log()
    async with connect(yard, autoping=False, max_msg_size=0) as socket:
        flood = asyncio.create_task(_flood(yard))
        for number in range(3):
            await socket.ping(b"%d" % number)
            async with asyncio.timeout(30):
                while (message := await socket.receive()).type is not aiohttp.WSMsgType.PONG:
                    assert message.type is aiohttp.WSMsgType.BINARY
            assert message.data == b"%d" % number
        flood.cancel()
        await asyncio.gather(flood, return_exceptions=True)


async def _flood(yard: Yard) -> None:
    while True:
        await yard.runner.write("s", "c", Stream.STDOUT, bytes(20_000))
        await asyncio.sleep(0.001)


async def test_an_unknown_command_fails_the_upgrade_with_404_and_the_daemons_words(yard: Yard) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await connect(yard)
    assert refused.value.status == 404
    async with yard.client.get(yard.toolbox + PATH, headers=yard.key) as answer:
        assert answer.status == 404
        assert (await answer.json())["code"] == "NOT_FOUND"


@pytest.mark.parametrize(
    "bad", ["cursor=-1", "cursor=x", "cursor=99999999999999999999", "limit=1.5", "encoding=latin-1"]
)
async def test_bad_parameters_are_refused(yard: Yard, bad: str) -> None:
    yard.log()
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await connect(yard, f"{PATH}&{bad}")
    assert refused.value.status == 400


async def test_a_cursor_resumes_byte_exactly_and_a_limit_ends(yard: Yard) -> None:
    log = yard.log()
    log.append(Stream.STDOUT, b"0123")
    log.append(Stream.STDERR, b"4567")
    async with connect(yard, PATH + "&cursor=2&limit=4") as socket:
        assert await read_all(socket) == ([b"\x01\x01\x0123", b"\x02\x02\x0245"], 1000)


async def test_without_follow_a_socket_gets_what_is_there_and_closes(yard: Yard) -> None:
    yard.log().append(Stream.STDOUT, b"so far")
    async with connect(yard, PATH.partition("?")[0]) as socket:
        assert await read_all(socket) == ([b"\x01\x01\x01so far"], 1000)


async def test_the_lease_ends_when_the_client_leaves_without_a_word(yard: Yard) -> None:
    yard.log()
    socket = await connect(yard)
    await until(lambda: yard.runner.leases == 1)
    assert socket._response.connection is not None
    socket._response.connection.transport.abort()  # as a crash of the client
    await until(lambda: yard.runner.leases == 0)


async def test_a_lost_log_closes_with_1011_and_the_reason_after_what_was_there(yard: Yard) -> None:
    yard.log().append(Stream.STDOUT, b"last words")
    async with connect(yard) as socket:
        assert await socket.receive_bytes(timeout=30) == b"\x01\x01\x01last words"
        yard.control_plane.routes.clear()
        yard.runner.lost = "the sandbox was deleted by its owner"
        await yard.daemon.logs["s", "c"].tell()
        message = await socket.receive(timeout=30)
    assert (message.type, message.data, message.extra) == (aiohttp.WSMsgType.CLOSE, 1011, "the sandbox was deleted")


async def test_a_broken_relay_is_opened_again_and_nothing_is_missing(yard: Yard) -> None:
    yard.log()
    async with connect(yard) as socket:
        await until(lambda: yard.runner.leases == 1)
        yard.runner.refuse = "the runner restarts"
        await yard.daemon.logs["s", "c"].tell()
        await until(lambda: yard.runner.leases == 0)
        yard.runner.deliver = lambda frame: []  # and the bus brings nothing meanwhile
        await yard.runner.write("s", "c", Stream.STDOUT, b"written meanwhile")
        yard.runner.refuse = None
        assert await socket.receive_bytes(timeout=30) == b"\x01\x01\x01written meanwhile"
        await yard.runner.end("s", "c")
        assert await read_all(socket) == ([], 1000)


async def test_without_any_bus_message_everything_arrives_and_ends(yard: Yard) -> None:
    yard.log()
    yard.runner.deliver = lambda frame: []
    async with connect(yard) as socket:
        await until(lambda: yard.runner.leases == 1)
        await yard.runner.write("s", "c", Stream.STDOUT, b"only in the file")
        await yard.runner.end("s", "c")
        messages, code = await read_all(socket)
    assert (demultiplex(messages)[0], code) == (b"only in the file", 1000)


async def test_a_slow_reader_gets_everything_while_others_are_not_held_up(yard: Yard) -> None:
    log = yard.log()
    async with connect(yard, max_msg_size=0) as slow, connect(yard, max_msg_size=0) as quick:
        await until(lambda: yard.runner.leases == 1)
        reader = asyncio.create_task(read_all(quick))
        for number in range(100):
            await yard.runner.write("s", "c", Stream.STDOUT, bytes([32 + number]) * 200_000)
        await yard.runner.end("s", "c")
        assert demultiplex((await reader)[0])[0] == log.text()
        assert demultiplex((await read_all(slow))[0])[0] == log.text()


async def test_a_hundred_followers_all_get_everything(yard: Yard) -> None:
    yard.log()
    sockets = [await connect(yard) for _ in range(100)]
    await until(lambda: yard.runner.leases > 0)
    assert yard.runner.leases == 1, "all who follow a command here share one lease"
    readers = [asyncio.create_task(read_all(socket)) for socket in sockets]
    for number in range(50):
        await yard.runner.write("s", "c", Stream.STDOUT, b"line %d\n" % number)
    await yard.runner.end("s", "c")
    texts = {demultiplex(messages)[0] for messages, code in await asyncio.gather(*readers) if code == 1000}
    assert texts == {yard.daemon.logs["s", "c"].text()}


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("/api/toolbox/{id}/toolbox{path}", {"Authorization": "Bearer key-of-org-1"}),
        ("/toolbox/name-{id}{path}", {"Authorization": "Bearer key-of-org-1"}),
        ("{path}", {"X-Daytona-Preview-Token": TOKEN}),
        ("{path}&DAYTONA_SANDBOX_AUTH_KEY=" + TOKEN, {}),
        ("{path}", {"X-Daytona-Preview-Token": TOKEN, "Host": f"2280-{SANDBOX}.localhost"}),
    ],
)
async def test_logs_are_followed_under_every_mount(yard: Yard, url: str, headers: dict[str, str]) -> None:
    yard.log().append(Stream.STDOUT, b"x")
    yard.daemon.logs["s", "c"].finish()
    target = yard.origin + url.format(id=SANDBOX, path=PATH)
    async with yard.client.ws_connect(target, headers=headers) as socket:
        assert await read_all(socket) == ([b"\x01\x01\x01x"], 1000)


async def test_the_entrypoints_log_is_followed(yard: Yard) -> None:
    yard.log("entrypoint", "entrypoint_command").append(Stream.STDOUT, b"ready\n")
    async with connect(yard, "/process/session/entrypoint/logs?follow=true") as socket:
        assert await socket.receive_bytes(timeout=30) == b"\x01\x01\x01ready\n"
