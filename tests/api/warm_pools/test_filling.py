"""Warm pools: what waits in them, how they stay full, and what is refused."""

from pathlib import Path
from typing import Any

import daytona_api_client as client

from sandyard_api.jobs.wire import JobKind, Observation
from sandyard_api.sandboxes.states import Observed
from sandyard_api.warm_pools.models import NOBODY
from tests.api.conftest import API_KEY
from tests.api.doubles import badly, well
from tests.api.test_coverage import check_schema
from tests.api.warm_pools.pools import SNAPSHOT, Pools, open_pools

NOT_OURS = "pool must not be greater than 1000"


async def test_a_pool_fills_itself_and_says_how_full_it_is(pools: Pools, description: dict[str, Any]) -> None:
    made = await pools.call("POST", "/warm-pools", {"snapshot": SNAPSHOT, "pool": 3})
    assert (made.status, made.json["pool"], made.json["currentSize"]) == (201, 3, 0)
    check_schema(description, "WarmPool", made.json)
    await pools.fill()
    [listed] = (await pools.call("GET", "/warm-pools")).json
    check_schema(description, "WarmPool", listed)
    assert client.WarmPool.from_dict(listed) is not None
    assert listed["currentSize"] == 3
    assert len(pools.world.runner.jobs) == 3


async def test_no_more_than_two_are_made_at_once(pools: Pools) -> None:
    await pools.call("POST", "/warm-pools", {"snapshot": SNAPSHOT, "pool": 9})
    for _ in range(3):
        await pools.world.plane.warm_keeper.look()
    assert len(await pools.rows()) == 2


async def test_a_pool_is_filled_again_but_not_while_users_wait(pools: Pools) -> None:
    await pools.pool(1)
    assert (await pools.call("POST", "/sandbox", {})).status == 200
    keeper = pools.world.plane.warm_keeper
    await keeper.look()
    assert await pools.rows() == []  # claims come in bursts
    await pools.call("POST", "/sandbox", {"buildInfo": {"dockerfileContent": "FROM x"}})
    await pools.clock.advance(1)
    await keeper.look()
    assert await pools.rows() == []
    await pools.world.runner.work_once()
    await keeper.look()
    assert len(await pools.rows()) == 1


async def test_users_who_never_stop_coming_do_not_starve_a_pool(pools: Pools) -> None:
    pool = await pools.pool(1)
    await pools.call("POST", "/sandbox", {"buildInfo": {"dockerfileContent": "FROM x"}})  # nobody takes it up
    await pools.call("PATCH", f"/warm-pools/{pool['id']}", {"pool": 2})
    for _ in range(2):
        await pools.world.plane.warm_keeper.look()
        assert len(await pools.rows()) == 1
        await pools.clock.advance(5)
    await pools.world.plane.warm_keeper.look()
    assert len(await pools.rows()) == 2


async def test_one_that_died_is_replaced(pools: Pools) -> None:
    await pools.pool(1)
    [dead] = await pools.rows()
    died = Observation(dead.id, Observed.STOPPED, "killed: out of memory", pools.clock.now())
    await pools.world.internal.observe([died])
    await pools.fill()
    assert dead.id not in {row.id for row in await pools.rows()}
    [pool] = (await pools.call("GET", "/warm-pools")).json
    assert (pool["currentSize"], "ended by itself" in pool["errorReason"]) == (0, True)
    await pools.clock.advance(10)
    await pools.fill()
    await pools.fill()
    [pool] = (await pools.call("GET", "/warm-pools")).json
    assert (pool["currentSize"], pool["errorReason"]) == (1, None)


async def test_what_cannot_be_made_is_told_and_tried_again_later(pools: Pools) -> None:
    runner = pools.world.runner
    runner.play = lambda job: badly(job) if job.kind is JobKind.CREATE else well(job)
    await pools.pool(3)
    tried = sum(job.kind is JobKind.CREATE for job in runner.jobs)
    assert tried <= 3
    [pool] = (await pools.call("GET", "/warm-pools")).json
    assert (pool["currentSize"], pool["errorReason"]) == (0, "cannot create: no space left")
    runner.play = well
    await pools.clock.advance(10)
    await pools.fill()
    assert await pools.sizes() == [3]


async def test_a_smaller_pool_and_none_let_their_sandboxes_go(pools: Pools) -> None:
    pool = await pools.pool(4)
    path = f"/warm-pools/{pool['id']}"
    smaller = await pools.call("PATCH", path, {"pool": 1})
    assert (smaller.status, smaller.json["pool"]) == (200, 1)
    await pools.fill()
    assert await pools.sizes() == [1]
    assert (await pools.call("PATCH", path, {"pool": 0})).status == 200
    await pools.fill()
    assert await pools.sizes() == [0]
    await pools.call("PATCH", path, {"pool": 2})
    await pools.fill()
    gone = await pools.call("DELETE", path)
    assert (gone.status, gone.body) == (204, b"")
    await pools.fill()
    assert await pools.rows() == []
    assert (await pools.call("GET", "/warm-pools")).json == []


async def test_no_timer_acts_on_what_waits(pools: Pools) -> None:
    await pools.pool(2)
    await pools.clock.advance(90 * 24 * 3600)
    await pools.world.runner.beat()
    await pools.world.plane.timers.look()
    assert [row.observed for row in await pools.rows()] == [Observed.STARTED] * 2


async def test_a_reset_removes_pools_and_all_that_waits(pools: Pools) -> None:
    await pools.pool(3)
    async with pools.world.runner.working():
        answer = await pools.call("POST", "/_sandyard/reset", {})
    assert answer.status in (200, 201), answer.body
    assert await pools.rows() == []
    assert (await pools.call("GET", "/warm-pools")).json == []


async def test_the_setting_makes_a_pool_for_everybody(database_url: str, tmp_path: Path) -> None:
    async with open_pools(database_url, tmp_path, warm_pool=2) as pools:
        await pools.fill()
        [pool] = (await pools.call("GET", "/warm-pools")).json
        assert (pool["organizationId"], pool["pool"], pool["currentSize"]) == (NOBODY, 2, 2)
        assert (await pools.call("GET", "/sandbox?includeWarm=true")).json["items"] == []
        for method, body in (("PATCH", {"pool": 5}), ("DELETE", None)):
            refused = await pools.call(method, f"/warm-pools/{pool['id']}", body)
            assert (refused.status, "SANDYARD_WARM_POOL" in refused.json["message"]) == (403, True)
        async with pools.world.runner.working():
            assert (await pools.call("POST", "/_sandyard/reset", {})).status in (200, 201)
        assert len(await pools.rows()) == 2
        other = (await pools.call("POST", "/_sandyard/organizations", {})).json
        theirs = await pools.call("POST", "/sandbox", {}, key=other["apiKey"])
        assert (theirs.json["state"], theirs.json["organizationId"]) == ("started", other["id"])
        ours = await pools.call("POST", "/sandbox", {}, key=API_KEY)
        assert ours.json["state"] == "started"
        assert (await pools.call("GET", f"/sandbox/{ours.json['id']}", key=other["apiKey"])).status == 404
    async with open_pools(database_url, tmp_path) as pools:
        await pools.fill()
        assert (await pools.call("GET", "/warm-pools")).json == []


async def test_bad_input_is_refused_in_the_words_of_the_protocol(pools: Pools) -> None:
    for body, status, message in (
        ({}, 400, "snapshot should not be empty, pool must be a number conforming to the specified constraints"),
        ({"snapshot": SNAPSHOT, "pool": 0}, 400, "pool must not be less than 1"),
        ({"snapshot": SNAPSHOT, "pool": 1.5}, 400, "pool must be an integer number"),
        ({"snapshot": SNAPSHOT, "pool": "x"}, 400, "pool must be a number conforming to the specified constraints"),
        ({"snapshot": SNAPSHOT, "pool": 1001}, 400, NOT_OURS),
        ({"snapshot": 5, "pool": 1}, 400, "snapshot must be a string, snapshot should not be empty"),
        (
            {"snapshot": "none", "pool": 1},
            400,
            "Snapshot none not found. Did you add it through the Daytona Dashboard?",
        ),
        ({"snapshot": SNAPSHOT, "pool": 1, "target": "mars"}, 404, "Region not found"),
        ([], 400, "body must be an object"),
    ):
        answer = await pools.call("POST", "/warm-pools", body)
        assert (answer.status, answer.json["message"]) == (status, message), body
    pool = await pools.pool(1)
    again = await pools.call("POST", "/warm-pools", {"snapshot": SNAPSHOT, "pool": 2})
    assert again.status == 409
    for change, message in (
        ({}, "pool must be a number conforming to the specified constraints"),
        ({"pool": -1}, "pool must not be less than 0"),
        ({"pool": 2000}, NOT_OURS),
    ):
        answer = await pools.call("PATCH", f"/warm-pools/{pool['id']}", change)
        assert (answer.status, answer.json["message"]) == (400, message), change
    for method, asked in (("PATCH", {"pool": 1}), ("DELETE", None)):
        answer = await pools.call(method, "/warm-pools/none%2F", asked)
        assert (answer.status, answer.json["message"]) == (404, "Warm pool with ID none/ not found")
        assert (await pools.call(method, f"/warm-pools/{pool['id']}", asked, key=None)).status == 401
