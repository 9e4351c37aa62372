"""Warm pools: what waits in them, who gets it, and how they stay full."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import daytona_api_client as client
import pytest
from sqlalchemy import select, update

from sandyard.clock import ManualClock
from sandyard.serving import listen_unix, serve
from sandyard_api.jobs.client import UnknownRoute
from sandyard_api.jobs.wire import JobKind, Observation
from sandyard_api.sandboxes.models import Sandbox
from sandyard_api.sandboxes.states import Desired, Observed
from sandyard_api.warm_pools.models import NOBODY
from tests.api.conftest import API_KEY, World, open_world
from tests.api.doubles import ScriptedRunner, badly, well
from tests.api.test_coverage import check_schema, description
from tests.api.test_events import listening

__all__ = ["description"]

FOREVER = 10**9
SNAPSHOT = "sandyard-default"
NOT_OURS = "pool must not be greater than 1000"


class Doors:
    """A runner's API that takes variables for sandboxes, as long as `silent` does not name them."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, str]]] = []
        self.silent: set[str] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": f"{message['type']}.complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        sandbox_id = scope["path"].rsplit("/", 1)[-1]
        body = (await receive())["body"]
        is_silent = sandbox_id in self.silent or "all" in self.silent
        if not is_silent:
            self.told.append((sandbox_id, json.loads(body)))
        await send({"type": "http.response.start", "status": 502 if is_silent else 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})


class Pools:
    """A world whose keeper looks only when told, and whose time goes by hand."""

    def __init__(self, world: World, clock: ManualClock, doors: Doors) -> None:
        self.world = world
        self.clock = clock
        self.doors = doors

    async def call(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        return await self.world.client.call(method, path, body, **more)

    async def pool(self, size: int, snapshot: str = SNAPSHOT) -> dict[str, Any]:
        """A full pool."""
        made = await self.call("POST", "/warm-pools", {"snapshot": snapshot, "pool": size})
        assert made.status == 201, made.body
        await self.fill()
        return dict(made.json)

    async def fill(self) -> None:
        """Let the keeper and the runner work until neither has anything to do."""
        await self.clock.advance(2)
        for _ in range(200):
            await self.world.plane.warm_keeper.look()
            if not await self.world.runner.work_once():
                return
        raise AssertionError("the keeper never comes to rest")

    async def sizes(self) -> list[int]:
        """How many wait in each pool."""
        return [pool["currentSize"] for pool in (await self.call("GET", "/warm-pools")).json]

    async def create(self, **body: Any) -> Any:
        """The answer to a create, whoever makes it."""
        async with self.world.runner.working():
            return await self.call("POST", "/sandbox", body)

    async def rows(self) -> Sequence[Sandbox]:
        async with self.world.plane.database.reading() as db:
            warm = Sandbox.warm_pool_id.is_not(None) & (Sandbox.desired != Desired.DESTROYED)
            return (await db.scalars(select(Sandbox).where(warm).order_by(Sandbox.id))).all()


@asynccontextmanager
async def open_pools(database_url: str, folder: Path, **changes: Any) -> AsyncIterator[Pools]:
    clock, doors = ManualClock(), Doors()
    async with open_world(database_url, clock=clock, timer_seconds=FOREVER, **changes) as world:
        async with serve(doors, listen_unix(folder / "runner.sock")):
            world.runner = ScriptedRunner(world.internal, url=f"unix:{folder / 'runner.sock'}")
            await world.runner.beat()
            yield Pools(world, clock, doors)


@pytest.fixture
async def pools(database_url: str, tmp_path: Path) -> AsyncIterator[Pools]:
    async with open_pools(database_url, tmp_path) as opened:
        yield opened


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
