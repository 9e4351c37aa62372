"""Followed logs without WebSockets: text in the form of each version, and Server-Sent Events that resume."""

import asyncio
import base64
import json
from typing import Any

import aiohttp
import pytest

from sandyard_daemon.wire import Stream
from sandyard_daemon.wire.markers import demultiplex
from tests.proxy.conftest import Yard

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "/process/session/s/command/c/logs?follow=true"


def get(yard: Yard, query: str = "", **headers: str) -> Any:
    """A followed log; underscores of header names stand for hyphens."""
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return yard.client.get(yard.toolbox + PATH + query, headers=yard.key | named)


async def test_curl_gets_plain_text_as_it_comes(yard: Yard) -> None:
    yard.log().append(Stream.STDOUT, b"early\n")
    async with get(yard) as answer:
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert await answer.content.readany() == b"early\n"
        await yard.runner.write("s", "c", Stream.STDERR, b"live\n")
        assert await answer.content.readany() == b"live\n"
        await yard.runner.end("s", "c")
        assert await answer.content.readany() == b""


@pytest.mark.parametrize(
    ("headers", "marked"),
    [
        ({}, False),
        ({"X_Daytona_Split_Output": "true"}, True),
        ({"X_Daytona_SDK_Version": "0.26.0"}, False),
        ({"X_Daytona_SDK_Version": "0.27.0"}, True),
        ({"X_Daytona_SDK_Version": "0.226.1"}, True),
    ],
)
async def test_text_has_markers_for_those_who_split_it(yard: Yard, headers: dict[str, str], marked: bool) -> None:
    log = yard.log()
    log.append(Stream.STDOUT, b"out")
    log.append(Stream.STDERR, b"err")
    log.finish()
    async with get(yard, **headers) as answer:
        body = await answer.read()
    assert body == (b"\x01\x01\x01out\x02\x02\x02err" if marked else b"outerr")


async def test_a_lost_log_is_cut_off_without_the_end_of_the_body(yard: Yard) -> None:
    yard.log().append(Stream.STDOUT, b"x")
    async with get(yard) as answer:
        assert await answer.content.readany() == b"x"
        yard.control_plane.change(state="stopped")
        yard.runner.lost = "stopped"
        await yard.daemon.logs["s", "c"].tell()
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.content.readany()


async def events(answer: aiohttp.ClientResponse, count: int) -> list[dict[str, Any]]:
    """The next events: their id, name and data."""
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(30):
        while len(found) < count:
            block = await answer.content.readuntil(b"\n\n")
            fields = dict(line.split(": ", 1) for line in block.decode().strip().split("\n"))
            found.append({**fields, "data": json.loads(fields["data"])})
    return found


async def test_events_carry_cursor_channel_and_data_and_tell_the_end(yard: Yard) -> None:
    log = yard.log()
    log.append(Stream.STDOUT, "grüße\n".encode())
    log.append(Stream.STDERR, b"err")
    log.finish(4)
    async with get(yard, Accept="text/event-stream") as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        first, second, last = await events(answer, 3)
    assert (first["id"], first["data"]["cursor"], first["data"]["channel"]) == ("8", 0, "stdout")
    assert first["data"]["data"] == "grüße\n"
    assert (second["id"], second["data"]["channel"], second["data"]["data"]) == ("11", "stderr", "err")
    assert (last["event"], last["data"]) == ("end", {"cursor": 11, "exitCode": 4})


@pytest.mark.parametrize("resume", [{"Last_Event_ID": "3"}, {}])
async def test_events_resume_after_the_last_one(yard: Yard, resume: dict[str, str]) -> None:
    log = yard.log()
    log.append(Stream.STDOUT, b"0123456")
    log.finish()
    query = "" if resume else "&cursor=3"
    async with get(yard, query, Accept="text/event-stream", **resume) as answer:
        first, _ = await events(answer, 2)
    assert (first["data"]["cursor"], first["data"]["data"]) == (3, "3456")


async def test_events_in_base64_keep_every_byte(yard: Yard) -> None:
    data = bytes(range(256)) * 600
    yard.log().append(Stream.STDOUT, data)
    yard.daemon.logs["s", "c"].finish()
    async with get(yard, "&encoding=base64", Accept="text/event-stream") as answer:
        got = b""
        while len(got) < len(data):
            [event] = await events(answer, 1)
            assert event["data"]["cursor"] == len(got)
            got += base64.b64decode(event["data"]["data"])
    assert got == data


async def test_events_do_not_split_characters_over_writes(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    # Its beginning is let go after a moment, and between our two writes the machine may take longer.
    monkeypatch.setattr("sandyard_proxy.follow.routes.HOLD_SECONDS", 60)
    yard.log()
    async with get(yard, Accept="text/event-stream") as answer:
        await yard.runner.write("s", "c", Stream.STDOUT, b"a\xe2\x82")
        [first] = await events(answer, 1)
        await yard.runner.write("s", "c", Stream.STDOUT, b"\xac")
        [second] = await events(answer, 1)
    assert (first["data"]["data"], first["id"]) == ("a", "1")
    assert (second["data"]["data"], second["data"]["cursor"], second["id"]) == ("€", 1, "4")


async def test_a_log_without_follow_is_the_daemons(yard: Yard) -> None:
    async with yard.client.get(f"{yard.toolbox}{PATH.partition('?')[0]}?cursor=5", headers=yard.key) as answer:
        seen = await answer.json()
    assert (seen["path"], seen["query"]) == ("/process/session/s/command/c/logs", "cursor=5")


async def test_escaped_ids_reach_the_log_they_name(yard: Yard) -> None:
    yard.daemon.logs["a b", "c"] = yard.log()
    yard.daemon.logs["s", "c"].append(Stream.STDOUT, b"x")
    yard.daemon.logs["s", "c"].finish()
    url = f"{yard.toolbox}/process/session/a%20b/command/c/logs?follow=true"
    async with yard.client.get(url, headers=yard.key) as answer:
        assert demultiplex([b"\x01\x01\x01", await answer.read()])[0] == b"x"
