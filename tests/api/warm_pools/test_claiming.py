"""Warm pools: who gets what waits in them."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import update

from sandyard_api.jobs.client import UnknownRoute
from sandyard_api.sandboxes.models import Sandbox
from tests.api.test_coverage import check_schema
from tests.api.test_events import listening
from tests.api.warm_pools.pools import Pools


async def test_what_waits_belongs_to_nobody_until_it_is_claimed(pools: Pools, description: dict[str, Any]) -> None:
    pool = await pools.pool(2)
    [one, _] = await pools.rows()
    assert (await pools.call("GET", "/sandbox")).json["items"] == []
    assert (await pools.call("GET", "/sandbox/paginated?includeWarm=true")).json["items"] == []
    shown = (await pools.call("GET", "/sandbox?includeWarm=true")).json
    check_schema(description, "ListSandboxesResponse", shown)
    assert [item["warmPoolId"] for item in shown["items"]] == [pool["id"]] * 2
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/stop"), ("GET", "/ports/80/preview-url")):
        assert (await pools.call(method, f"/sandbox/{one.id}{path}")).status == 404
    assert (await pools.call("GET", f"/_sandyard/sandboxes/{one.id}")).status == 404
    with pytest.raises(UnknownRoute):
        await pools.world.internal.route(one.id)
    assert (await pools.call("GET", "/sandbox")).json["items"] == []


async def test_a_create_that_fits_is_started_at_once_with_all_that_was_asked(
    pools: Pools, description: dict[str, Any]
) -> None:
    await pools.pool(1)
    [waiting] = await pools.rows()
    await pools.clock.advance(3600)
    await pools.world.runner.beat()
    asked = {
        "name": "mine",
        "labels": {"a": "b"},
        "public": True,
        "env": {"GREETING": "hello"},
        "autoStopInterval": 7,
        "autoArchiveInterval": 70,
        "autoDeleteInterval": 700,
        "ttlMinutes": 60,
    }
    made = await pools.call("POST", "/sandbox", asked)  # no runner works: nothing is left to be done
    check_schema(description, "Sandbox", made.json)
    assert made.status == 200
    assert (made.json["id"], made.json["state"]) == (waiting.id, "started")
    assert {key: made.json[key] for key in asked if key != "ttlMinutes"} == {
        key: value for key, value in asked.items() if key != "ttlMinutes"
    }
    assert "warmPoolId" not in made.json
    assert made.json["createdAt"] == made.json["lastActivityAt"] == "2026-01-01T01:00:02Z"
    assert made.json["autoDestroyAt"] == "2026-01-01T02:00:02Z"
    assert pools.doors.told == [
        (waiting.id, {"DAYTONA_ORGANIZATION_ID": made.json["organizationId"], "GREETING": "hello"})
    ]
    route = await pools.world.internal.route("mine")
    assert (route.sandbox_id, route.name, route.labels) == (waiting.id, "mine", {"a": "b"})
    async with pools.world.plane.database.reading() as db:
        row = await db.get_one(Sandbox, waiting.id)
    assert row.preview_token_hash != waiting.preview_token_hash
    history = (await pools.call("GET", f"/_sandyard/sandboxes/{waiting.id}")).json["history"]
    assert history[-1]["cause"] == "claimed from a warm pool by a request"
    stopped = await _stop(pools, waiting.id)
    assert stopped.json["state"] == "stopped"
    await _start(pools, waiting.id)
    last = pools.world.runner.jobs[-1].spec
    assert (last.was_warm, last.env, last.organization_id) == (True, {"GREETING": "hello"}, row.organization_id)


async def _stop(pools: Pools, sandbox_id: str) -> Any:
    async with pools.world.runner.working():
        return await pools.call("POST", f"/sandbox/{sandbox_id}/stop")


async def _start(pools: Pools, sandbox_id: str) -> Any:
    async with pools.world.runner.working():
        return await pools.call("POST", f"/sandbox/{sandbox_id}/start")


async def test_clients_are_told_of_a_claim_and_of_nothing_before(pools: Pools) -> None:
    async with listening(pools.world.client.url) as listener:
        await pools.pool(2)
        made = await pools.call("POST", "/sandbox", {"name": "mine"})
        told = await listener.until("sandbox.state.updated", "started")
        assert (told["oldState"], told["newState"], told["sandbox"]["id"]) == ("started", "started", made.json["id"])
        assert told["sandbox"]["name"] == "mine"
        assert listener.events.empty()


@pytest.mark.parametrize(
    "asked",
    [
        {"snapshot": "sandyard-medium"},
        {"user": "root"},
        {"networkBlockAll": True},
        {"env": {"not-a-name": "x"}},
        {"buildInfo": {"dockerfileContent": "FROM x"}},
    ],
)
async def test_what_must_be_there_from_the_beginning_is_made_anew(pools: Pools, asked: dict[str, Any]) -> None:
    await pools.pool(1)
    [waiting] = await pools.rows()
    made = await pools.create(**asked)
    assert made.status == 200
    assert made.json["id"] != waiting.id
    assert await pools.sizes() == [1]


async def test_of_many_at_once_each_gets_another_one(pools: Pools) -> None:
    await pools.pool(8)
    waiting = {row.id for row in await pools.rows()}
    answers = await asyncio.gather(*(pools.call("POST", "/sandbox", {"name": f"n{number}"}) for number in range(8)))
    assert [answer.json["state"] for answer in answers] == ["started"] * 8
    assert {answer.json["id"] for answer in answers} == waiting
    assert len({(await pools.world.internal.route(f"n{number}")).preview_token for number in range(8)}) == 8


async def test_two_who_want_one_name_get_one_sandbox_and_a_conflict(pools: Pools) -> None:
    await pools.pool(2)
    answers = await asyncio.gather(*(pools.call("POST", "/sandbox", {"name": "same"}) for _ in range(2)))
    assert sorted(answer.status for answer in answers) == [200, 409]
    assert await pools.sizes() == [1]


async def test_more_than_wait_are_made_anew(pools: Pools) -> None:
    await pools.pool(1)
    async with pools.world.runner.working():
        answers = await asyncio.gather(*(pools.call("POST", "/sandbox", {}) for _ in range(3)))
    assert [answer.json["state"] for answer in answers] == ["started"] * 3
    assert len({answer.json["id"] for answer in answers}) == 3


async def test_one_that_does_not_answer_is_nobodys_and_the_next_is_taken(pools: Pools) -> None:
    await pools.pool(2)
    dead, alive = await pools.rows()
    pools.doors.silent.add(dead.id)
    first = await pools.call("POST", "/sandbox", {"name": "first"})
    assert (first.json["id"], first.json["state"], first.json["name"]) == (alive.id, "started", "first")
    async with pools.world.runner.working():
        second = await pools.call("POST", "/sandbox", {"name": "second"})
    assert second.json["id"] not in (dead.id, alive.id)
    assert (await pools.call("GET", f"/sandbox/{dead.id}")).status == 404


async def test_where_none_answers_one_is_made_anew(pools: Pools) -> None:
    await pools.pool(2)
    pools.doors.silent.add("all")
    made = await pools.create(name="mine")
    assert (made.status, made.json["state"], made.json["name"]) == (200, "started", "mine")
    assert pools.doors.told == []


async def test_what_a_dead_process_was_claiming_is_removed_and_its_name_is_free(pools: Pools) -> None:
    await pools.pool(1)
    [waiting] = await pools.rows()
    async with pools.world.plane.database.transaction() as db:
        taken = {"claimed_at": pools.clock.now(), "name": "mine"}
        await db.execute(update(Sandbox).where(Sandbox.id == waiting.id).values(**taken))
    await pools.world.plane.warm_keeper.look()
    assert (await pools.call("GET", "/sandbox/mine")).status == 404
    assert waiting.id in {row.id for row in await pools.rows()}
    await pools.clock.advance(30)
    await pools.fill()
    assert waiting.id not in {row.id for row in await pools.rows()}
    assert (await pools.create(name="mine")).status == 200
