"""Lifecycle operations that are refused, and what holds in every state."""

import asyncio

import pytest

from sandyard_api.jobs.wire import Heartbeat
from tests.api.conftest import World
from tests.api.doubles import RUNNER_ID
from tests.api.operations import ask, state, stopped, told


@pytest.mark.parametrize(
    ("verb", "message"),
    [
        ("pause", "Sandbox must be in started state to pause"),
        ("fork", "Sandbox must be in started state to fork"),
        ("recover", "Sandbox must be in error state to recover"),
        ("stop", "Sandbox is not in a stoppable state"),
    ],
)
async def test_what_a_stopped_sandbox_refuses(world: World, verb: str, message: str) -> None:
    assert told(await ask(world, await stopped(world), verb)) == (400, message)


async def test_a_started_sandbox_is_not_archived(world: World) -> None:
    assert told(await ask(world, await world.create(), "archive")) == (400, "Sandbox is not stopped")


@pytest.mark.parametrize("verb", ["pause", "archive", "backup", "recover", "resize", "fork"])
async def test_every_operation_on_an_unknown_sandbox_is_not_found(world: World, verb: str) -> None:
    answer = await world.client.call("POST", f"/sandbox/nobody/{verb}", {"cpu": 2})
    assert told(answer) == (404, "Sandbox with ID or name nobody not found")


@pytest.mark.parametrize("verb", ["fork", "resize"])
async def test_a_body_that_is_no_json_is_refused(world: World, verb: str) -> None:
    sandbox = await world.create()
    answer = await world.client.call("POST", f"/sandbox/{sandbox['id']}/{verb}", data=b"{nonsense")
    assert told(answer) == (400, "Invalid JSON in request body")


@pytest.mark.parametrize(
    ("verb", "capability", "words"),
    [("pause", "pause", "Pausing"), ("fork", "fork", "Forking"), ("resize", "resize", "Resizing")],
)
async def test_what_the_runtime_cannot_do_is_refused_before_anything_moves(
    world: World, verb: str, capability: str, words: str
) -> None:
    sandbox = await world.create()
    table = {capability: {"enforcement": "refused", "detail": "no control group"}}
    await world.internal.heartbeat(RUNNER_ID, Heartbeat("unix:/nowhere", "scripted", table))
    answer = await ask(world, sandbox, verb, {"cpu": 2} if verb == "resize" else {})
    assert told(answer) == (422, f"{words} is not supported for this sandbox: no control group")
    assert await state(world, sandbox) == "started"


async def test_every_state_can_be_deleted(world: World) -> None:
    for steps in (
        ["pause"],
        ["pause", "start"],
        ["resize"],
        ["stop"],
        ["stop", "archive"],
        ["stop", "archive", "start"],
    ):
        sandbox = await world.create()
        for number, verb in enumerate(steps):
            asking = asyncio.create_task(ask(world, sandbox, verb, {"cpu": 2}))
            jobs = await world.runner.claim(wait_seconds=30)
            if number + 1 < len(steps):
                for job in jobs:
                    await world.runner.answer(job)
                await asking
        deleted = await world.client.call("DELETE", f"/sandbox/{sandbox['id']}")
        assert (deleted.status, deleted.json["state"]) == (200, "destroying"), steps
        await world.runner.work_once()
        assert await state(world, sandbox) == "destroyed"
        await asyncio.wait((asking,), timeout=6)
        asking.cancel()


async def test_auto_pause_and_auto_stop_exclude_each_other(world: World) -> None:
    exclusive = (400, "At most one of autoStopInterval and autoPauseInterval may be non-zero")
    sandbox = await world.create(autoPauseInterval=30)
    assert (sandbox["autoPauseInterval"], sandbox["autoStopInterval"]) == (30, 0)
    assert told(await ask(world, sandbox, "autostop/5")) == exclusive
    assert (await ask(world, sandbox, "autopause/0")).json["autoPauseInterval"] == 0
    assert (await ask(world, sandbox, "autostop/5")).json["autoStopInterval"] == 5
    assert told(await ask(world, sandbox, "autopause/10")) == exclusive
    assert told(await ask(world, sandbox, "autopause/-1")) == (400, "Auto-pause interval must be non-negative")
    assert (await ask(world, sandbox, "autopause/x")).status == 400
    both = await world.client.call("POST", "/sandbox", {"autoStopInterval": 5, "autoPauseInterval": 5})
    assert told(both) == exclusive
    ephemeral = await world.client.call("POST", "/sandbox", {"autoDeleteInterval": 0, "autoPauseInterval": 5})
    assert ephemeral.status == 400
