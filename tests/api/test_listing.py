"""Lists: filters, sorting and both kinds of pages, on both databases."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import select

from sandyard.clock import ManualClock
from sandyard_api.organizations.models import Organization
from sandyard_api.sandboxes.models import Sandbox
from sandyard_api.sandboxes.states import Desired, Observed
from tests import factories
from tests.api.conftest import World, open_world
from tests.factories import NOON


@pytest.fixture
async def listed(database_url: str) -> AsyncIterator[World]:
    """Five sandboxes: three started, one stopping, one in error; and one destroyed. No time passes: no timer acts."""
    async with open_world(database_url, clock=ManualClock(NOON)) as world:
        await fill(world)
        yield world


async def fill(world: World) -> None:
    async with world.plane.database.transaction() as db:
        owner = await db.scalar(select(Organization.id))
        rows: list[dict[str, Any]] = [
            {"name": "alpha", "labels": {"team": "red", "a.b/c": "1"}, "cpu": 1},
            {"name": "Beta", "labels": {"team": "red"}, "cpu": 2, "public": True},
            {"name": "gamma", "labels": {"Team": "red"}, "cpu": 4, "snapshot": "special"},
            {"name": "delta", "desired": Desired.STOPPED, "cpu": 4},
            {"name": "epsilon", "observed": Observed.ERROR, "cpu": 4, "recoverable": True},
            {"name": "gone", "observed": Observed.DESTROYED, "desired": Desired.DESTROYED},
        ]
        for number, row in enumerate(rows):
            at = NOON + timedelta(minutes=number)
            db.add(factories.sandbox(f"id-{number}", organization_id=owner, created_at=at, last_activity_at=at, **row))


async def names(world: World, query: str) -> list[str]:
    answer = await world.client.call("GET", f"/sandbox?{query}")
    assert answer.status == 200, answer.body
    return [item["name"] for item in answer.json["items"]]


ALL = ["epsilon", "delta", "gamma", "Beta", "alpha"]


FILTERS: list[tuple[str, list[str]]] = [
    ("", ALL),
    ("name=be", ["Beta"]),
    ("name=%25", []),
    ("id=ID-1", ["Beta"]),
    ("states=started", ["gamma", "Beta", "alpha"]),
    ("states=stopping&states=error", ["epsilon", "delta"]),
    ("states[]=stopping&states[]=error", ["epsilon", "delta"]),
    ("states%5B0%5D=stopping&states%5B1%5D=error", ["epsilon", "delta"]),
    ("states=stopping,error", ["epsilon", "delta"]),
    ("states=paused", []),
    ("labels=" + quote('{"team":"red"}'), ["Beta", "alpha"]),
    ("labels=" + quote('{"team":"red","a.b/c":"1"}'), ["alpha"]),
    ("labels=" + quote('{"team":"blue"}'), []),
    ("isPublic=true", ["Beta"]),
    ("isRecoverable=true", ["epsilon"]),
    ("snapshots=special", ["gamma"]),
    ("regionIds=elsewhere", []),
    ("sandboxClasses=container&limit=200", ALL),
    ("sandboxClasses=windows", []),
    ("minCpu=2&maxCpu=2", ["Beta"]),
    ("minCpu=1e%2B00&maxCpu=1e+00", ["alpha"]),
    ("createdAtAfter=2026-03-04T12:03:00Z", ["epsilon", "delta"]),
    ("createdAtBefore=2026-03-04T13:00:00.000000+0100", ["alpha"]),
    ("lastEventBefore=2026-03-04T12:00:00", ["alpha"]),
    ("sort=createdAt&order=asc", ALL[::-1]),
    ("unknown=1&includeWarm=true", ALL),
]


async def test_filters(listed: World) -> None:
    found = {query: await names(listed, query) for query, _ in FILTERS}
    assert found == dict(FILTERS)


async def test_pages_by_cursor_give_everything_once_in_every_order(listed: World) -> None:
    for sort in ("name", "cpu", "memoryGib", "diskGib", "lastActivityAt", "createdAt"):
        for order in ("asc", "desc"):
            seen = await all_pages(listed, f"limit=2&sort={sort}&order={order}")
            assert sorted(seen) == sorted(ALL), (sort, order)


async def all_pages(world: World, query: str) -> list[str]:
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = await world.client.call("GET", f"/sandbox?{query}&cursor={quote(cursor, safe='')}")
        assert "nextCursor" in page.json
        seen += [item["name"] for item in page.json["items"]]
        cursor = page.json["nextCursor"]
    return seen


async def test_numbered_pages_tell_the_total(listed: World) -> None:
    page = await listed.client.call("GET", "/sandbox/paginated?page=2&limit=2&sort=createdAt&order=asc")
    assert page.status == 200
    assert [item["name"] for item in page.json["items"]] == ["gamma", "delta"]
    assert (page.json["total"], page.json["page"], page.json["totalPages"]) == (5, 2, 3)
    assert "env" in page.json["items"][0]


async def test_list_items_have_no_env(listed: World) -> None:
    page = await listed.client.call("GET", "/sandbox")
    assert not {"env", "kvm", "volumes", "buildInfo"} & set(page.json["items"][0])


REFUSED: list[tuple[str, str]] = [
    ("cursor=nonsense", "Invalid cursor provided: nonsense"),
    ("cursor=eyJzb3J0VmFsdWUiOjF9", "Invalid cursor provided: eyJzb3J0VmFsdWUiOjF9"),
    ("labels=nonsense", "Invalid labels JSON format"),
    ("limit=0", "limit must not be less than 1"),
    ("limit=201", "limit must not be greater than 200"),
    ("limit=many", "limit must be a number conforming to the specified constraints"),
    ("createdAtAfter=soon", "createdAtAfter must be a valid ISO 8601 date string"),
    ("isPublic=maybe", "isPublic must be a boolean value"),
    ("labels=" + quote('{"a\\"b":"1"}'), "labels cannot be filtered by a key with quotes or backslashes"),
]


async def test_queries_that_cannot_be_are_refused(world: World) -> None:
    told = {}
    for query, _ in REFUSED:
        answer = await world.client.call("GET", f"/sandbox?{query}")
        told[query] = answer.json["message"] if answer.status == 400 else answer.status
    assert told == dict(REFUSED)


async def test_states_that_do_not_exist_are_refused(world: World) -> None:
    answer = await world.client.call("GET", "/sandbox?states=flying")
    assert answer.status == 400
    assert answer.json["message"].startswith("each value in states must be one of the following values: ")


async def test_other_organizations_are_not_listed(world: World) -> None:
    async with world.plane.database.transaction() as db:
        db.add(factories.organization())
        await db.flush()
        db.add(factories.sandbox("theirs"))
    assert (await world.client.call("GET", "/sandbox")).json["items"] == []
    assert (await world.client.call("GET", "/sandbox/theirs")).status == 404
    async with world.plane.database.reading() as db:
        assert await db.get(Sandbox, "theirs") is not None
