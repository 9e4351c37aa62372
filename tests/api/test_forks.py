"""Forking and recovering, as clients see them, on both databases."""

from sandyard_api.jobs.wire import JobKind, JobResult
from sandyard_api.sandboxes.states import Observed
from tests.api.conftest import World
from tests.api.doubles import badly, well
from tests.api.operations import ask, state, told


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


async def test_a_fork_s_name_must_be_safe(world: World) -> None:
    sandbox = await world.create()
    for name in ("<b>", 7, "http://x"):
        assert (await ask(world, sandbox, "fork", {"name": name})).status == 400


async def test_a_fork_waits_for_no_runner_but_its_parents(world: World) -> None:
    parent = await world.create()
    child = (await ask(world, parent, "fork", {})).json
    other = type(world.runner)(world.internal, "runner-2")
    await other.beat()
    assert await other.claim() == []
    assert [job.spec.sandbox_id for job in await world.runner.claim()] == [child["id"]]
