"""Reset, isolated organizations and identifiers by seed."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from sandyard.bus.memory import MemoryBus
from sandyard.ids import SeededIds, UsedDatabase
from sandyard.virtual_clock import VirtualClock
from sandyard_api.app import open_control_plane
from sandyard_api.bench.resetting import Resetting
from sandyard_api.jobs.wire import JobKind
from sandyard_api.sandboxes.service import Sandboxes
from tests.api.conftest import API_KEY, World, open_world, options


@pytest.fixture
async def bench(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url, clock=VirtualClock()) as world:
        await world.runner.beat()
        async with world.runner.working():
            yield world


async def call(world: World, method: str, path: str, body: Any = None, key: str = API_KEY) -> Any:
    answer = await world.client.call(method, path, body, key=key)
    assert answer.status < 300, answer.body
    return answer.json


async def test_a_reset_removes_sandboxes_and_their_rows_and_keeps_the_key(bench: World) -> None:
    made = await call(bench, "POST", "/sandbox", {"name": "again"})
    done = await call(bench, "POST", "/_sandyard/reset", {})
    assert done["sandboxes"] == 1
    assert (await bench.client.call("GET", f"/sandbox/{made['id']}")).status == 404
    assert (await call(bench, "POST", "/sandbox", {"name": "again"}))["state"] == "started"


@pytest.mark.parametrize("way", ["reset", "removal"])
@pytest.mark.parametrize("moment", ["_end", "_delete_rows"])
async def test_a_sandbox_that_is_made_while_others_are_removed_is_removed_as_well(
    bench: World, monkeypatch: pytest.MonkeyPatch, way: str, moment: str
) -> None:
    """A row that went alone would leave the sandbox to nobody."""
    mine = await call(bench, "POST", "/_sandyard/organizations", {})
    await call(bench, "POST", "/sandbox", {}, mine["apiKey"])
    made: list[dict[str, Any]] = []
    real = getattr(Resetting, moment)

    async def create_first(self: Resetting, *arguments: Any) -> Any:
        if not made:
            made.append(await call(bench, "POST", "/sandbox", {}, mine["apiKey"]))
        return await real(self, *arguments)

    monkeypatch.setattr(Resetting, moment, create_first)
    if way == "reset":
        done = await call(bench, "POST", "/_sandyard/reset", {}, mine["apiKey"])
    else:
        done = await call(bench, "DELETE", f"/_sandyard/organizations/{mine['id']}")
    assert done["sandboxes"] == 2
    kinds = [job.kind for job in bench.runner.jobs if job.spec.sandbox_id == made[0]["id"]]
    assert kinds == [JobKind.CREATE, JobKind.DESTROY]


async def test_a_reset_waits_for_a_create_that_takes_a_volume(bench: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the volume first and the organization then: a reset that took them the other way round met it."""
    mine = await call(bench, "POST", "/_sandyard/organizations", {})
    volume = await call(bench, "POST", "/volumes", {"name": "data"}, mine["apiKey"])
    async with asyncio.timeout(60):
        while (await call(bench, "GET", f"/volumes/{volume['id']}", key=mine["apiKey"]))["state"] != "ready":  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    has_volume, goes_on = asyncio.Event(), asyncio.Event()
    insert = Sandboxes.insert

    async def slow_insert(self: Sandboxes, db: AsyncSession, *arguments: Any, **named: Any) -> Any:
        done = await insert(self, db, *arguments, **named)
        await db.flush()
        has_volume.set()
        await goes_on.wait()
        return done

    monkeypatch.setattr(Sandboxes, "insert", slow_insert)
    mounts = {"volumes": [{"volumeId": volume["id"], "mountPath": "/data"}]}
    creating = asyncio.create_task(bench.client.call("POST", "/sandbox", mounts, key=mine["apiKey"]))
    await has_volume.wait()
    resetting = asyncio.create_task(bench.client.call("POST", "/_sandyard/reset", {}, key=mine["apiKey"]))
    await asyncio.sleep(0.5)  # on PostgreSQL it waits within its transaction by now
    goes_on.set()
    assert (await creating).status == 200
    assert ((await resetting).status, (await resetting).json["sandboxes"]) == (200, 1)


async def test_an_organization_with_snapshots_of_its_own_can_be_removed(bench: World) -> None:
    mine = await call(bench, "POST", "/_sandyard/organizations", {})
    await call(bench, "POST", "/snapshots", {"name": "mine", "imageName": "debian:12"}, mine["apiKey"])
    await call(bench, "POST", "/_sandyard/reset", {}, mine["apiKey"])
    assert [one["name"] for one in (await call(bench, "GET", "/snapshots", key=mine["apiKey"]))["items"]][:1] == [
        "mine"
    ]
    assert (await call(bench, "DELETE", f"/_sandyard/organizations/{mine['id']}"))["organizations"] == 1


async def test_organizations_do_not_see_each_other_and_one_reset_spares_the_other(bench: World) -> None:
    one, two = [await call(bench, "POST", "/_sandyard/organizations", {}) for _ in range(2)]
    first = await call(bench, "POST", "/sandbox", {"name": "same"}, one["apiKey"])
    second = await call(bench, "POST", "/sandbox", {"name": "same"}, two["apiKey"])
    assert (await bench.client.call("GET", f"/sandbox/{first['id']}", key=two["apiKey"])).status == 404
    await call(bench, "POST", "/_sandyard/reset", {}, one["apiKey"])
    assert (await call(bench, "GET", f"/sandbox/{second['id']}", key=two["apiKey"]))["state"] == "started"
    refused = await bench.client.call("POST", "/_sandyard/reset", {"scope": "all"}, key=one["apiKey"])
    assert refused.status == 403


async def test_a_removed_organizations_key_stops_working_at_once(bench: World) -> None:
    made = await call(bench, "POST", "/_sandyard/organizations", {"name": "mine"})
    assert made["name"] == "mine"
    taken = await bench.client.call("POST", "/_sandyard/organizations", {"name": "mine"})
    assert taken.status == 409
    await call(bench, "POST", "/sandbox", {}, made["apiKey"])
    await call(bench, "DELETE", f"/_sandyard/organizations/{made['id']}")
    assert (await bench.client.call("GET", "/sandbox", key=made["apiKey"])).status == 401
    assert (await bench.client.call("DELETE", f"/_sandyard/organizations/{made['id']}")).status == 404


async def test_a_reset_of_all_removes_organizations_and_releases_the_clock(bench: World) -> None:
    made = await call(bench, "POST", "/_sandyard/organizations", {})
    await call(bench, "POST", "/_sandyard/clock", {"action": "freeze"})
    done = await call(bench, "POST", "/_sandyard/reset", {"scope": "all"})
    assert done["organizations"] == 1
    assert (await bench.client.call("GET", "/sandbox", key=made["apiKey"])).status == 401
    assert (await call(bench, "GET", "/_sandyard/clock"))["mode"] == "real"


async def test_the_same_seed_gives_the_same_ids_after_each_reset(tmp_path: Path, bench: World) -> None:
    refused = await bench.client.call("POST", "/_sandyard/reset", {"scope": "all", "seed": 1})
    assert (refused.status, "SANDYARD_SEED" in refused.json["message"]) == (400, True)
    url = f"sqlite:///{tmp_path / 'seeded.db'}"
    seen = []
    async with open_world(url, clock=VirtualClock(), ids=SeededIds(7)) as world:
        await world.runner.beat()
        async with world.runner.working():
            for seed in (None, 7, 8, 7):
                body = {"scope": "all"} | ({"seed": seed} if seed else {})
                await call(world, "POST", "/_sandyard/reset", body)
                seen.append([(await call(world, "POST", "/sandbox", {}))["id"] for _ in range(2)])
    assert seen[0] == seen[1] == seen[3] != seen[2]
    with pytest.raises(UsedDatabase, match="sandyard down"):
        async with open_control_plane(
            database_url=url, bus=MemoryBus(), clock=VirtualClock(), ids=SeededIds(7), options=options()
        ):
            pass
