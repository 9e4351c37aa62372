"""The virtual clock over the API: a month of timers in the order they would have had."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from sandyard.bus.memory import MemoryBus
from sandyard.virtual_clock import VirtualClock
from tests.api.conftest import API_KEY, World, open_world

MINUTES_OF_A_MONTH = 30 * 24 * 60


@pytest.fixture
async def bench(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url, clock=VirtualClock()) as world:
        await world.runner.beat()
        async with world.runner.working():
            yield world


async def move(world: World, action: str, **values: Any) -> dict[str, Any]:
    answer = await world.client.call("POST", "/_sandyard/clock", {"action": action, **values})
    assert answer.status == 200, answer.body
    assert isinstance(answer.json, dict)
    return answer.json


async def create(world: World, **body: Any) -> dict[str, Any]:
    answer = await world.client.call("POST", "/sandbox", body)
    assert answer.status == 200, answer.body
    assert isinstance(answer.json, dict)
    return answer.json


async def history(world: World, sandbox_id: str) -> list[tuple[datetime, str]]:
    read = await world.client.call("GET", f"/_sandyard/sandboxes/{sandbox_id}")
    return [(datetime.fromisoformat(change["at"]), change["state"]) for change in read.json["history"]]


async def test_a_frozen_clock_gives_the_same_time_to_everything_and_work_goes_on(bench: World) -> None:
    at = (await move(bench, "freeze", at="2040-01-01T00:00:00Z"))["now"]
    made = await create(bench)
    assert made["state"] == "started"
    assert made["createdAt"] == made["updatedAt"] == at
    refused = await bench.client.call("GET", "/sandbox/none")
    assert refused.json["timestamp"] == at


async def test_a_month_of_stops_and_deletes_happens_in_order_and_each_at_its_own_moment(bench: World) -> None:
    start = datetime.fromisoformat((await move(bench, "freeze"))["now"])
    late = await create(bench, autoStopInterval=MINUTES_OF_A_MONTH - 20, autoDeleteInterval=10)
    early = await create(bench, autoStopInterval=15, autoArchiveInterval=0, autoDeleteInterval=MINUTES_OF_A_MONTH - 720)
    cold = await create(bench, autoStopInterval=15, autoArchiveInterval=60)
    moved = await move(bench, "advance", seconds=30 * 86400)
    assert moved["mode"] == "frozen"
    assert datetime.fromisoformat(moved["now"]) == start + timedelta(days=30)
    found = {
        name: {state: at for at, state in await history(bench, box["id"])}
        for name, box in (("early", early), ("late", late), ("cold", cold))
    }
    assert found["cold"]["archived"] == start + timedelta(minutes=75)
    assert found["early"]["stopped"] == start + timedelta(minutes=15)
    assert found["early"]["destroyed"] == start + timedelta(minutes=MINUTES_OF_A_MONTH - 705)
    assert found["late"]["stopped"] == start + timedelta(minutes=MINUTES_OF_A_MONTH - 20)
    assert found["late"]["destroyed"] == start + timedelta(minutes=MINUTES_OF_A_MONTH - 10)


async def test_a_time_to_live_ends_a_sandbox_and_until_idle_finds_it(bench: World) -> None:
    made = await create(bench, autoStopInterval=0, ttlMinutes=45)
    moved = await move(bench, "run-until-idle")
    assert moved["steps"] >= 1
    assert (await history(bench, made["id"]))[-1][1] == "destroyed"


async def test_the_clock_runs_on_from_where_it_was_moved_to_until_it_is_released(bench: World) -> None:
    moved = await move(bench, "advance", seconds=3600)
    assert moved["mode"] == "shifted"
    assert moved["offsetSeconds"] == pytest.approx(3600, abs=60)
    assert (await move(bench, "release"))["mode"] == "real"


async def test_use_that_was_told_with_the_machines_time_counts_as_use_now(bench: World) -> None:
    made = await create(bench, autoStopInterval=15)
    await move(bench, "advance", seconds=14 * 60)
    await bench.internal.touch({made["id"]: VirtualClock().machine.now()})
    await move(bench, "advance", seconds=14 * 60)
    assert (await history(bench, made["id"]))[-1][1] == "started"
    await move(bench, "advance", seconds=2 * 60)
    assert (await history(bench, made["id"]))[-1][1] == "stopped"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"action": "rewind"}, "rewind"),
        ({"action": "advance"}, "needs `seconds`"),
        ({"action": "advance", "seconds": -1}, "from 0 to"),
        ({"action": "advance", "seconds": 1e12}, "from 0 to"),
        ({"action": "set", "at": "2001-01-01T00:00:00Z"}, "only goes forward"),
        ({"action": "set", "at": "2050-01-01T00:00:00"}, "time zone"),
        ({"action": "set", "at": "2300-01-01T00:00:00Z"}, "days at once"),
        ({"action": "freeze", "speed": 2}, "speed"),
    ],
)
async def test_a_move_that_cannot_be_is_refused_with_the_reason(bench: World, body: Any, words: str) -> None:
    answer = await bench.client.call("POST", "/_sandyard/clock", body)
    assert answer.status == 400
    assert words in answer.json["message"]
    assert (await bench.client.call("GET", "/_sandyard/clock")).json["mode"] == "real"


async def test_replicas_and_the_next_start_share_the_clock(database_url: str) -> None:
    bus = MemoryBus()
    async with open_world(database_url, clock=VirtualClock(), bus=bus) as one:
        async with open_world(database_url, clock=VirtualClock(), bus=bus) as other:
            at = (await move(one, "freeze"))["now"]
            while (await other.client.call("GET", "/_sandyard/clock")).json["now"] != at:
                pass
    async with open_world(database_url, clock=VirtualClock()) as again:
        assert (await again.client.call("GET", "/_sandyard/clock")).json["now"] == at


async def test_whoever_has_no_key_moves_nothing(bench: World) -> None:
    assert (await bench.client.call("GET", "/_sandyard/clock", key=None)).status == 401
    assert (await bench.client.call("GET", "/_sandyard/clock", key=API_KEY)).status == 200
