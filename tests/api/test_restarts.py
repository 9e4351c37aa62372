"""A control plane that is killed at any point goes on where the database says."""

import asyncio

from sandyard.clock import ManualClock
from tests.api.conftest import World, open_world
from tests.api.doubles import RUNNER_ID


async def test_a_create_outlives_the_process_that_took_it(database_url: str) -> None:
    clock = ManualClock()
    async with open_world(database_url, clock=clock) as world:
        await world.runner.beat()
        made = await world.client.call("POST", "/sandbox", {"buildInfo": {"dockerfileContent": "FROM x"}})
        [first] = await world.runner.claim()
    await clock.advance(31)
    async with open_world(database_url, clock=clock) as world:
        [second] = await world.runner.claim()
        assert (second.id, second.spec.door_secret) == (first.id, first.spec.door_secret)
        await world.runner.answer(second)
        read = await world.client.call("GET", f"/sandbox/{made.json['id']}")
        assert read.json["state"] == "started"


async def reach(world: World, path: str, state: str) -> None:
    """Wait until the sandbox is shown in that state."""
    async with asyncio.timeout(60):
        shown = None
        while shown != state:
            shown = (await world.client.call("GET", path)).json["state"]


LIFE = (
    ("POST", "/pause", "paused"),
    ("POST", "/start", "started"),
    ("POST", "/stop", "stopped"),
    ("POST", "/archive", "archived"),
    ("POST", "/start", "started"),
    ("DELETE", "", "destroyed"),
)


async def live(world: World, number: int) -> None:
    """One sandbox from its creation to its end, as fast as it goes."""
    made = await world.client.call("POST", "/sandbox", {"name": f"live-{number}"})
    path = f"/sandbox/{made.json['id']}"
    await reach(world, path, "started")
    for method, action, state in LIFE:
        assert (await world.client.call(method, path + action)).status == 200
        await reach(world, path, state)


async def test_a_dozen_sandboxes_at_once_all_come_to_their_end(either_world: World) -> None:
    async with either_world.runner.working():
        await asyncio.gather(*(live(either_world, number) for number in range(12)))
    assert len(either_world.runner.jobs) == 12 * (1 + len(LIFE))
    assert await either_world.internal.wanted(RUNNER_ID) == []
