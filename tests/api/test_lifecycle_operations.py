"""Pause, resize, archive, restore, fork and recover, as clients see them, on both databases."""

import asyncio
from typing import Any

import pytest

from sandyard_api.jobs.wire import Heartbeat, JobKind, JobResult, Resources
from sandyard_api.sandboxes.states import Observed
from tests.api.conftest import Answer, World, open_world
from tests.api.doubles import RUNNER_ID, badly, staying, well


async def ask(world: World, sandbox: dict[str, Any], verb: str, body: Any = None) -> Answer:
    return await world.client.call("POST", f"/sandbox/{sandbox['id']}/{verb}", body)


async def state(world: World, sandbox: dict[str, Any]) -> str:
    read = await world.client.call("GET", f"/sandbox/{sandbox['id']}")
    return str(read.json["state"])


async def last_cause(world: World, sandbox: dict[str, Any]) -> str:
    read = await world.client.call("GET", f"/_sandyard/sandboxes/{sandbox['id']}")
    return str(read.json["history"][-1]["cause"])


async def stopped(world: World, **body: Any) -> dict[str, Any]:
    sandbox = await world.create(**body)
    async with world.runner.working():
        assert (await ask(world, sandbox, "stop")).json["state"] == "stopped"
    return sandbox


async def archived(world: World) -> dict[str, Any]:
    sandbox = await stopped(world)
    await ask(world, sandbox, "archive")
    await world.runner.work_once()
    assert await state(world, sandbox) == "archived"
    return sandbox


def told(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json["message"]


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
    [job] = await world.runner.claim(wait_seconds=5)
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
    [job] = await world.runner.claim(wait_seconds=5)
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
    [restoring] = await world.runner.claim(wait_seconds=5)
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


async def test_a_fork_is_a_new_sandbox_with_what_its_parent_has(either_world: World) -> None:
    world = either_world
    parent = await world.create(name="trunk", labels={"a": "b"}, env={"X": "1"}, autoStopInterval=7)
    answer = await ask(world, parent, "fork", {"name": "branch"})
    child = answer.json
    assert (answer.status, child["state"], child["name"]) == (200, "forking", "branch")
    assert (child["labels"], child["env"], child["autoStopInterval"]) == ({"a": "b"}, {"X": "1"}, 7)
    assert child["id"] != parent["id"]
    assert await state(world, parent) == "started"
    [job] = await world.runner.claim()
    assert (job.kind, job.source_id) == (JobKind.FORK, parent["id"])
    assert job.spec.image == f"sandyard/fork:{child['id']}"
    await world.runner.answer(job)
    assert await state(world, child) == "started"
    forks = await world.client.call("GET", f"/sandbox/{parent['id']}/forks")
    assert [item["id"] for item in forks.json] == [child["id"]]
    found = await world.client.call("GET", "/sandbox/branch/parent")
    assert (found.status, found.json["id"]) == (200, parent["id"])


async def test_ancestors_are_told_from_the_nearest_on(either_world: World) -> None:
    world = either_world
    line = [await world.create(name="a")]
    for name in ("b", "c"):
        line.append((await ask(world, line[-1], "fork", {"name": name})).json)
        await world.runner.work_once()
    told_ids = [item["id"] for item in (await world.client.call("GET", "/sandbox/c/ancestors")).json]
    assert told_ids == [line[1]["id"], line[0]["id"]]
    assert (await world.client.call("GET", "/sandbox/a/ancestors")).json == []
    none = await world.client.call("GET", "/sandbox/a/parent")
    assert none.status == 404


async def test_a_parent_is_deleted_after_its_forks(either_world: World) -> None:
    world = either_world
    parent = await world.create()
    child = (await ask(world, parent, "fork", {})).json
    await world.runner.work_once()
    refused = await world.client.call("DELETE", f"/sandbox/{parent['id']}")
    text = "Cannot delete sandbox which has active fork children. The forks must be deleted first."
    assert told(refused) == (400, text)
    assert (await world.client.call("DELETE", f"/sandbox/{child['id']}")).status == 200
    assert (await world.client.call("DELETE", f"/sandbox/{parent['id']}")).status == 200
    await world.runner.work_once()
    forks = f"/sandbox/{parent['id']}/forks"
    assert (await world.client.call("GET", forks)).json == []
    assert [item["id"] for item in (await world.client.call("GET", forks + "?includeDestroyed=true")).json] == [
        child["id"]
    ]


async def test_a_fork_with_a_taken_name_makes_nothing(either_world: World) -> None:
    world = either_world
    parent = await world.create(name="trunk")
    again = await ask(world, parent, "fork", {"name": "trunk"})
    assert told(again) == (409, "Sandbox with name trunk already exists")
    assert (await world.client.call("GET", f"/sandbox/{parent['id']}/forks")).json == []
    assert await world.runner.claim() == []


async def test_a_fork_that_fails_is_an_error_that_can_be_deleted(either_world: World) -> None:
    world = either_world
    parent = await world.create()
    child = (await ask(world, parent, "fork", {})).json
    world.runner.play = badly
    await world.runner.work_once()
    read = await world.client.call("GET", f"/sandbox/{child['id']}")
    assert (read.json["state"], read.json["errorReason"]) == ("error", "cannot fork: no space left")
    world.runner.play = well
    await world.client.call("DELETE", f"/sandbox/{child['id']}")
    await world.runner.work_once()
    assert f"sandyard/fork:{child['id']}" in world.runner.jobs[-1].spec.owned_images
    assert await state(world, child) == "destroyed"
    assert await state(world, parent) == "started"


async def test_recover_makes_whole_what_can_be_and_nothing_else(either_world: World) -> None:
    world = either_world
    world.runner.play = lambda job: [
        JobResult(job.lease, ok=False, observed=Observed.ERROR, reason="no engine", recoverable=True)
    ]
    sandbox = await world.create()
    assert (sandbox["state"], sandbox["recoverable"]) == ("error", True)
    world.runner.play = well
    async with world.runner.working():
        answer = await ask(world, sandbox, "recover")
    assert (answer.status, answer.json["state"], answer.json["recoverable"]) == (200, "started", False)
    assert "errorReason" not in answer.json
    assert world.runner.jobs[-1].kind is JobKind.RECOVER
    assert told(await ask(world, sandbox, "recover")) == (400, "Sandbox must be in error state to recover")


async def test_recover_without_a_start_ends_stopped(either_world: World) -> None:
    world = either_world
    world.runner.play = lambda job: [
        JobResult(job.lease, ok=False, observed=Observed.ERROR, reason="no engine", recoverable=True)
    ]
    sandbox = await world.create()
    world.runner.play = well
    async with world.runner.working():
        answer = await ask(world, sandbox, "recover?skipStart=true")
    assert (answer.status, answer.json["state"], answer.json["desiredState"]) == (200, "stopped", "stopped")


async def test_recover_is_refused_for_what_is_lost_and_twice_in_an_hour(world: World) -> None:
    world.runner.play = badly
    lost = await world.create()
    assert told(await ask(world, lost, "recover")) == (400, "Sandbox is not in a recoverable state")
    world.runner.play = lambda job: [
        JobResult(job.lease, ok=False, observed=Observed.ERROR, reason="no engine", recoverable=True)
    ]
    sandbox = await world.create()
    async with world.runner.working():
        assert (await ask(world, sandbox, "recover")).json["state"] == "error"
    again = await ask(world, sandbox, "recover")
    assert told(again) == (409, "Sandbox recovery has been attempted recently. Please try again later")


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


async def test_a_fork_s_name_must_be_safe(world: World) -> None:
    sandbox = await world.create()
    for name in ("<b>", 7, "http://x"):
        assert (await ask(world, sandbox, "fork", {"name": name})).status == 400


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
            jobs = await world.runner.claim(wait_seconds=5)
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


async def test_an_operation_keeps_its_cause(world: World) -> None:
    sandbox = await world.create()
    await ask(world, sandbox, "pause")
    assert await last_cause(world, sandbox) == "pause by a request"
    await world.runner.work_once()
    assert await last_cause(world, sandbox) == "paused by the runner"


async def test_a_fork_waits_for_no_runner_but_its_parents(tmp_path: object) -> None:
    async with open_world(f"sqlite:///{tmp_path}/test.db", wait_seconds=0.2) as world:
        await world.runner.beat()
        parent = await world.create()
        child = (await ask(world, parent, "fork", {})).json
        other = type(world.runner)(world.internal, "runner-2")
        await other.beat()
        assert await other.claim() == []
        assert [job.spec.sandbox_id for job in await world.runner.claim()] == [child["id"]]
