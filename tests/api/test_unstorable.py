"""Characters that a database's text cannot hold, wherever a client or a runner may send them, on either database."""

from typing import Any

import pytest
from sqlalchemy import select

from sandyard.clock import SystemClock
from sandyard_api.jobs.client import UnknownRoute
from sandyard_api.jobs.wire import CommandRecord, SessionRecord
from sandyard_api.sessions.models import SessionCommand
from tests.api.conftest import World

UNMATCHABLE = [
    "name=a%00b",
    "id=%00",
    "snapshots=a&snapshots=%00",
    "regionIds[]=%00",
    "labels=%7B%22a%22%3A%22%5Cu0000%22%7D",
    "labels=%7B%22%5Cu0000%22%3A%22a%22%7D",
    "labels=%7B%22a%22%3A%22%5Cud800%22%7D",
    "sort=name&cursor=eyJzb3J0VmFsdWUiOiJcdTAwMDAiLCJpZCI6ImEifQ==",
    "sort=cpu&cursor=eyJzb3J0VmFsdWUiOiJhIiwiaWQiOiJhIn0=",
    "sort=name&cursor=eyJzb3J0VmFsdWUiOjEsImlkIjoiYSJ9",
    "sort=cpu&cursor=eyJzb3J0VmFsdWUiOjk5OTk5OTk5OTk5LCJpZCI6ImEifQ==",
    "createdAtAfter=0001-01-01T00:00:00%2B14:00",
]
UNMAKEABLE: list[dict[str, Any]] = [
    {"name": "a\x00b"},
    {"user": "\x00"},
    {"labels": {"a": "\x00"}},
    {"labels": {"\x00": "a"}},
    {"env": {"A": "\x00"}},
    {"env": {"\x00": "a"}},
    {"buildInfo": {"dockerfileContent": "FROM debian:12\x00\n"}},
]


async def test_an_id_with_a_nul_is_an_unknown_one(either_world: World) -> None:
    session = (await either_world.create())["id"] + "/sessions/a%00b"
    for method, path in [
        ("GET", "/sandbox/a%00b"),
        ("DELETE", "/sandbox/a%00b"),
        ("POST", "/sandbox/a%00b/start"),
        ("GET", "/sandbox/%ED%A0%80"),
        ("GET", "/_sandyard/sandboxes/a%00b"),
        ("GET", f"/_sandyard/sandboxes/{session}"),
        ("GET", f"/_sandyard/sandboxes/{session}/commands/%00"),
    ]:
        answer = await either_world.client.call(method, path)
        assert (answer.status, answer.json["code"]) == (404, "NOT_FOUND"), (method, path)


async def test_a_route_with_a_nul_is_an_unknown_one(either_world: World) -> None:
    with pytest.raises(UnknownRoute):
        await either_world.internal.route("a\x00b")


async def test_a_filter_that_no_text_can_match_is_refused(either_world: World) -> None:
    for query in UNMATCHABLE:
        answer = await either_world.client.call("GET", f"/sandbox?{query}")
        assert (answer.status, answer.json["code"]) == (400, "BAD_REQUEST"), query


async def test_filters_take_every_number(either_world: World) -> None:
    sandbox = await either_world.create()
    for query in ("minCpu=0.5", "maxCpu=1e300", "minMemoryGiB=-1e300"):
        answer = await either_world.client.call("GET", f"/sandbox?{query}")
        assert [item["id"] for item in answer.json["items"]] == [sandbox["id"]], query


async def test_a_sandbox_cannot_be_made_of_a_nul(either_world: World) -> None:
    for body in UNMAKEABLE:
        answer = await either_world.client.call("POST", "/sandbox", body)
        assert (answer.status, answer.json["code"]) == (400, "BAD_REQUEST"), body


async def test_lone_surrogates_are_no_json(either_world: World) -> None:
    for body in (rb'{"name": "\ud800"}', rb'{"labels": {"a": "\udc00"}}'):
        answer = await either_world.client.call("POST", "/sandbox", data=body)
        assert (answer.status, answer.json["message"]) == (400, "Invalid JSON in request body")


async def test_labels_cannot_be_replaced_by_a_nul(either_world: World) -> None:
    sandbox = await either_world.create()
    answer = await either_world.client.call("PUT", f"/sandbox/{sandbox['id']}/labels", {"labels": {"a": "\x00"}})
    assert (answer.status, answer.json["message"]) == (400, "labels must not contain NUL characters")


async def test_what_a_runner_reports_is_kept_with_the_character_replaced(either_world: World) -> None:
    sandbox = await either_world.create()
    now = SystemClock().now()
    await either_world.internal.record(
        [SessionRecord(sandbox["id"], "s", now)],
        [CommandRecord(sandbox["id"], "s", "c", "printf 'a\x00b'", now)],
    )
    await either_world.internal.append_build_log(sandbox["id"], "a\x00b\n")
    async with either_world.plane.database.reading() as db:
        assert await db.scalar(select(SessionCommand.command)) == "printf 'a\ufffdb'"
