"""Pause, resize, archive and restore, as clients see them, on both databases."""

import asyncio
from typing import Any

import pytest

from sandyard_api.jobs.wire import JobKind, JobResult, Resources
from sandyard_api.sandboxes.states import Observed
from tests.api.conftest import World
from tests.api.doubles import staying
from tests.api.operations import archived, ask, last_cause, state, stopped, told


async def test_pause_answers_pausing_and_start_resumes_with_the_same_token(either_world: World) -> None:
    world = either_world
    sandbox = await world.create()
    before = await world.client.call("GET", f"/sandbox/{sandbox['id']}/ports/3000/preview-url")
    pausing = await ask(world, sandbox, "pause")
    assert (pausing.status, pausing.json["state"], pausing.json["desiredState"]) == (200, "pausing", "paused")
    await world.runner.work_once()
    assert await state(world, sandbox) == "paused"
    async with world.runner.working():
        resumed = await ask(world, sandbox, "start")
    assert (resumed.status, resumed.json["state"]) == (200, "started")
    assert [job.kind for job in world.runner.jobs[-2:]] == [JobKind.PAUSE, JobKind.RESUME]
    after = await world.client.call("GET", f"/sandbox/{sandbox['id']}/ports/3000/preview-url")
    assert before.json["token"] == after.json["token"]


async def test_a_paused_sandbox_shows_resuming_and_can_be_stopped_or_deleted(either_world: World) -> None:
    world = either_world
    sandbox = await world.create()
    await ask(world, sandbox, "pause")
    await world.runner.work_once()
    starting = asyncio.create_task(ask(world, sandbox, "start"))
    [job] = await world.runner.claim(wait_seconds=30)
    assert await state(world, sandbox) == "resuming"
    await world.runner.answer(job)
    assert (await starting).json["state"] == "started"
    await ask(world, sandbox, "pause")
    await world.runner.work_once()
    async with world.runner.working():
        assert (await ask(world, sandbox, "stop")).json["state"] == "stopped"
        deleted = await world.client.call("DELETE", f"/sandbox/{sandbox['id']}")
    assert deleted.json["state"] == "destroying"


async def test_a_pause_that_fails_leaves_it_started_and_says_why(either_world: World) -> None:
    world = either_world
    sandbox = await world.create()
    await ask(world, sandbox, "pause")
    world.runner.play = lambda job: [JobResult(job.lease, ok=False, observed=Observed.STARTED, reason="no freezer")]
    await world.runner.work_once()
    read = await world.client.call("GET", f"/sandbox/{sandbox['id']}")
    assert (read.json["state"], read.json["desiredState"]) == ("started", "started")
    assert read.json["errorReason"] == "no freezer"


async def test_resize_answers_resizing_and_ends_with_the_new_figures(either_world: World) -> None:
    world = either_world
    sandbox = await world.create()
    resizing = await ask(world, sandbox, "resize", {"cpu": 2, "memory": 4})
    assert (resizing.status, resizing.json["state"], resizing.json["cpu"]) == (200, "resizing", 1)
    again = await ask(world, sandbox, "resize", {"cpu": 3})
    assert told(again) == (409, "Sandbox state change in progress")
    world.runner.play = staying(Observed.STARTED)
    await world.runner.work_once()
    assert world.runner.jobs[-1].resources == Resources(cpu=2, memory_gib=4, disk_gib=3)
    read = await world.client.call("GET", f"/sandbox/{sandbox['id']}")
    assert (read.json["state"], read.json["cpu"], read.json["memory"], read.json["disk"]) == ("started", 2, 4, 3)


async def test_a_stopped_sandbox_may_get_a_larger_disk_and_less_memory(either_world: World) -> None:
    world = either_world
    sandbox = await stopped(world)
    world.runner.play = staying(Observed.STOPPED)
    assert (await ask(world, sandbox, "resize", {"disk": 10, "memory": 2})).json["state"] == "resizing"
    await world.runner.work_once()
    assert (await ask(world, sandbox, "resize", {"memory": 1})).json["state"] == "resizing"
    await world.runner.work_once()
    read = await world.client.call("GET", f"/sandbox/{sandbox['id']}")
    assert (read.json["state"], read.json["memory"], read.json["disk"]) == ("stopped", 1, 10)


async def test_a_resize_that_fails_changes_no_figure(either_world: World) -> None:
    world = either_world
    sandbox = await world.create()
    await ask(world, sandbox, "resize", {"memory": 4})
    world.runner.play = lambda job: [JobResult(job.lease, ok=False, observed=Observed.STARTED, reason="not enough")]
    await world.runner.work_once()
    read = await world.client.call("GET", f"/sandbox/{sandbox['id']}")
    assert (read.json["state"], read.json["memory"], read.json["errorReason"]) == ("started", 1, "not enough")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "No resource changes specified - sandbox is already at the desired configuration"),
        ({"cpu": 2}, "No resource changes specified - sandbox is already at the desired configuration"),
        ({"cpu": 1}, "Sandbox must be in stopped state to decrease the number of CPU cores"),
        ({"memory": 1}, "Sandbox must be in stopped state to decrease memory"),
        ({"disk": 20}, "Disk resize can only be performed on a stopped sandbox"),
        ({"disk": 2}, "Sandbox disk size cannot be decreased"),
        ({"cpu": 0}, "cpu must not be less than 1"),
        ({"memory": -1, "disk": 0}, "memory must not be less than 1, disk must not be less than 1"),
        ({"cpu": "2"}, "cpu must be a number conforming to the specified constraints"),
        ({"cpu": 1.5}, "cpu must be an integer number"),
        ([], "body must be an object"),
    ],
)
async def test_a_resize_that_cannot_be_is_refused(world: World, body: Any, message: str) -> None:
    build = {"dockerfileContent": "FROM x"}
    async with world.runner.working():
        made = await world.client.call("POST", "/sandbox", {"buildInfo": build, "cpu": 2, "memory": 2, "disk": 5})
        while (await state(world, made.json)) != "started":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert told(await ask(world, made.json, "resize", body)) == (400, message)
    assert await state(world, made.json) == "started"


async def test_archive_keeps_the_record_and_start_restores(either_world: World) -> None:
    world = either_world
    sandbox = await stopped(world)
    archiving = await ask(world, sandbox, "archive")
    assert (archiving.status, archiving.json["state"], archiving.json["desiredState"]) == (200, "archiving", "archived")
    [job] = await world.runner.claim()
    assert (job.kind, job.image) == (JobKind.ARCHIVE, f"sandyard/archive:{sandbox['id']}")
    await world.runner.answer(job)
    read = await world.client.call("GET", f"/sandbox/{sandbox['id']}")
    assert (read.json["state"], "runnerId" in read.json) == ("archived", False)
    starting = asyncio.create_task(ask(world, sandbox, "start"))
    [job] = await world.runner.claim(wait_seconds=30)
    assert (job.kind, job.image) == (JobKind.RESTORE, f"sandyard/archive:{sandbox['id']}")
    assert await state(world, sandbox) == "restoring"
    await world.runner.answer(job)
    assert (await starting).json["state"] == "started"


async def test_a_start_while_archiving_gives_the_archiving_up(either_world: World) -> None:
    world = either_world
    sandbox = await stopped(world)
    await ask(world, sandbox, "archive")
    [archiving] = await world.runner.claim()
    starting = asyncio.create_task(ask(world, sandbox, "start"))
    [restoring] = await world.runner.claim(wait_seconds=30)
    await world.runner.answer(archiving)
    assert world.runner.voided == [archiving.id]
    await world.runner.answer(restoring)
    assert (await starting).json["state"] == "started"


async def test_an_archiving_that_fails_leaves_it_stopped_with_its_files(either_world: World) -> None:
    world = either_world
    sandbox = await stopped(world)
    await ask(world, sandbox, "archive")
    world.runner.play = lambda job: [JobResult(job.lease, ok=False, observed=Observed.STOPPED, reason="no space left")]
    await world.runner.work_once()
    read = await world.client.call("GET", f"/sandbox/{sandbox['id']}")
    assert (read.json["state"], read.json["errorReason"]) == ("stopped", "no space left")


async def test_deleting_an_archived_sandbox_takes_its_image_along(either_world: World) -> None:
    world = either_world
    sandbox = await archived(world)
    await world.client.call("DELETE", f"/sandbox/{sandbox['id']}")
    await world.runner.work_once()
    assert world.runner.jobs[-1].spec.owned_images == (f"sandyard/archive:{sandbox['id']}",)
    assert await state(world, sandbox) == "destroyed"


async def test_an_ephemeral_sandbox_is_not_archived(world: World) -> None:
    sandbox = await world.create(autoDeleteInterval=0)
    assert told(await ask(world, sandbox, "archive")) == (400, "Ephemeral sandboxes cannot be archived")
    assert told(await ask(world, sandbox, "backup"))[0] == 400


async def test_an_operation_keeps_its_cause(world: World) -> None:
    sandbox = await world.create()
    await ask(world, sandbox, "pause")
    assert await last_cause(world, sandbox) == "pause by a request"
    await world.runner.work_once()
    assert await last_cause(world, sandbox) == "paused by the runner"
