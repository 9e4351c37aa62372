"""A sandbox from its creation to its end, as clients see it, on both databases."""

import asyncio
from urllib.parse import quote

from sandyard_api.jobs.wire import JobKind, JobProgress, JobResult
from sandyard_api.sandboxes.states import Observed
from tests.api.conftest import World, open_world
from tests.api.doubles import badly, pulling_first


async def test_create_waits_for_the_runner_and_answers_started(either_world: World) -> None:
    world = either_world
    sandbox = await world.create(name="first", labels={"a": "b"}, env={"X": "1"})
    assert sandbox["state"] == "started"
    assert sandbox["name"] == "first"
    assert sandbox["toolboxProxyUrl"] == f"{world.client.url}/toolbox"
    assert sandbox["daemonVersion"] == "test"
    read = await world.client.call("GET", "/sandbox/first")
    assert (read.status, read.json["id"]) == (200, sandbox["id"])


async def test_stop_and_start_again_with_a_new_preview_token(either_world: World) -> None:
    world = either_world
    sandbox = await world.create()
    first = await world.client.call("GET", f"/sandbox/{sandbox['id']}/ports/3000/preview-url")
    async with world.runner.working():
        stopped = await world.client.call("POST", f"/sandbox/{sandbox['id']}/stop")
        started = await world.client.call("POST", f"/sandbox/{sandbox['id']}/start")
    assert (stopped.status, stopped.json["state"]) == (200, "stopped")
    assert (started.status, started.json["state"]) == (200, "started")
    second = await world.client.call("GET", f"/sandbox/{sandbox['id']}/ports/3000/preview-url")
    assert len(second.json["token"]) == 32
    assert first.json["token"] != second.json["token"]


async def test_delete_answers_destroying_frees_the_name_and_the_record_stays(either_world: World) -> None:
    world = either_world
    sandbox = await world.create(name="web")
    deleted = await world.client.call("DELETE", "/sandbox/web")
    assert (deleted.status, deleted.json["state"], deleted.json["name"]) == (200, "destroying", "web")
    second = await world.create(name="web")
    await world.runner.work_once()
    gone = await world.client.call("GET", f"/sandbox/{sandbox['id']}")
    assert (gone.status, gone.json["state"]) == (200, "destroyed")
    again = await world.client.call("DELETE", f"/sandbox/{sandbox['id']}")
    assert (again.status, again.json["message"]) == (404, f"Sandbox with ID or name {sandbox['id']} not found")
    listed = await world.client.call("GET", "/sandbox")
    assert [item["id"] for item in listed.json["items"]] == [second["id"]]


async def test_a_name_that_is_taken_is_a_conflict(either_world: World) -> None:
    await either_world.create(name="web")
    again = await either_world.client.call("POST", "/sandbox", {"name": "web"})
    assert (again.status, again.json["message"]) == (409, "Sandbox with name web already exists")
    assert again.json["code"] == "CONFLICT"


async def test_creates_with_one_name_at_once_make_one_sandbox(either_world: World) -> None:
    async with either_world.runner.working():
        answers = await asyncio.gather(
            *(either_world.client.call("POST", "/sandbox", {"name": "web"}) for _ in range(8))
        )
    assert sorted(answer.status for answer in answers) == [200] + [409] * 7


async def test_an_image_create_answers_pending_build_and_goes_through_its_states(world: World) -> None:
    answer = await world.client.call("POST", "/sandbox", {"buildInfo": {"dockerfileContent": "FROM debian:12\n"}})
    assert (answer.status, answer.json["state"]) == (200, "pending_build")
    assert answer.json["buildInfo"]["dockerfileContent"] == "FROM debian:12\n"
    [job] = await world.runner.claim()
    assert (job.kind, job.spec.image, job.spec.snapshot) == (JobKind.CREATE, "debian:12", None)
    seen = []
    for step in pulling_first(job):
        await (
            world.internal.progress(job.id, step)
            if isinstance(step, JobProgress)
            else world.internal.finish(job.id, step)
        )
        seen.append((await world.client.call("GET", f"/sandbox/{answer.json['id']}")).json["state"])
    assert seen == ["pulling_snapshot", "creating", "starting", "started"]


async def test_a_failing_create_answers_200_with_the_error(world: World) -> None:
    world.runner.play = badly
    sandbox = await world.create()
    assert sandbox["state"] == "error"
    assert sandbox["errorReason"] == "cannot create: no space left"
    start = await world.client.call("POST", f"/sandbox/{sandbox['id']}/start")
    assert (start.status, start.json["message"]) == (400, "Sandbox is in an errored state")


async def test_create_answers_in_time_when_the_runner_is_slow(tmp_path: object) -> None:
    async with open_world(f"sqlite:///{tmp_path}/test.db", wait_seconds=0.2) as world:
        await world.runner.beat()
        answer = await world.client.call("POST", "/sandbox", {})
    assert (answer.status, answer.json["state"]) == (200, "creating")


async def test_without_a_runner_nothing_is_created(tmp_path: object) -> None:
    async with open_world(f"sqlite:///{tmp_path}/test.db", wait_seconds=0.2) as world:
        answer = await world.client.call("POST", "/sandbox", {})
        left = await world.client.call("GET", "/sandbox")
    assert (answer.status, answer.json["message"]) == (400, "No available runners")
    assert left.json["items"] == []


async def test_create_waits_for_the_first_runner(tmp_path: object) -> None:
    async with open_world(f"sqlite:///{tmp_path}/test.db") as world:
        creating = asyncio.create_task(world.client.call("POST", "/sandbox", {}))
        answered, _ = await asyncio.wait({creating}, timeout=0.3)
        assert not answered
        async with world.runner.working():
            answer = await creating
    assert (answer.status, answer.json["state"]) == (200, "started")


async def test_a_runner_is_at_work_when_it_asks_for_jobs(world: World) -> None:
    at_work = asyncio.create_task(world.plane.runners.at_work())
    await world.runner.beat()
    assert not at_work.done()
    await world.runner.claim()
    await asyncio.wait_for(at_work, 30)


async def test_deleting_while_creating_voids_the_job(world: World) -> None:
    creating = asyncio.create_task(world.client.call("POST", "/sandbox", {"name": "web"}))
    jobs = await world.runner.claim(wait_seconds=30)
    deleted = await world.client.call("DELETE", "/sandbox/web")
    assert (deleted.status, deleted.json["state"]) == (200, "destroying")
    await world.runner.answer(jobs[0])
    assert world.runner.voided == [jobs[0].id]
    await world.runner.work_once()
    assert (await creating).json["state"] == "destroyed"


async def test_deleting_before_any_runner_saw_it_ends_at_once(world: World) -> None:
    made = await world.client.call("POST", "/sandbox", {"buildInfo": {"dockerfileContent": "FROM x"}})
    deleted = await world.client.call("DELETE", f"/sandbox/{made.json['id']}")
    assert (deleted.status, deleted.json["state"]) == (200, "destroyed")
    assert await world.runner.claim() == []


async def test_stopping_a_stopped_sandbox_is_refused_and_starting_a_started_one_is_not(world: World) -> None:
    sandbox = await world.create()
    path = f"/sandbox/{sandbox['id']}"
    started = await world.client.call("POST", f"{path}/start")
    assert (started.status, started.json["state"]) == (200, "started")
    async with world.runner.working():
        await world.client.call("POST", f"{path}/stop")
    again = await world.client.call("POST", f"{path}/stop")
    assert (again.status, again.json["message"]) == (400, "Sandbox is not in a stoppable state")


async def test_a_second_request_during_a_change_is_a_conflict(world: World) -> None:
    sandbox = await world.create()
    path = f"/sandbox/{sandbox['id']}"
    stopping = asyncio.create_task(world.client.call("POST", f"{path}/stop"))
    [job] = await world.runner.claim(wait_seconds=30)
    again = await world.client.call("POST", f"{path}/start")
    assert (again.status, again.json["message"]) == (409, "Sandbox state change in progress")
    await world.runner.answer(job)
    assert (await stopping).json["state"] == "stopped"


async def test_stopping_an_ephemeral_sandbox_deletes_it(world: World) -> None:
    sandbox = await world.create(autoDeleteInterval=0)
    stopped = await world.client.call("POST", f"/sandbox/{sandbox['id']}/stop")
    assert (stopped.status, stopped.json["state"]) == (200, "destroying")
    await world.runner.work_once()
    assert world.runner.jobs[-1].kind is JobKind.DESTROY
    assert (await world.client.call("GET", f"/sandbox/{sandbox['id']}")).json["state"] == "destroyed"


async def test_force_reaches_the_runner(world: World) -> None:
    sandbox = await world.create()
    async with world.runner.working():
        await world.client.call("POST", f"/sandbox/{sandbox['id']}/stop?force=true")
    assert world.runner.jobs[-1].force is True


async def test_a_stop_that_fails_leaves_a_running_sandbox(world: World) -> None:
    sandbox = await world.create()
    world.runner.play = lambda job: [JobResult(job.lease, ok=False, observed=Observed.STARTED, reason="busy")]
    async with world.runner.working():
        answer = await world.client.call("POST", f"/sandbox/{sandbox['id']}/stop")
    assert (answer.status, answer.json["state"], answer.json["errorReason"]) == (200, "started", "busy")


async def test_a_failed_sandbox_can_be_deleted(world: World) -> None:
    world.runner.play = badly
    sandbox = await world.create()
    deleted = await world.client.call("DELETE", f"/sandbox/{sandbox['id']}")
    assert (deleted.status, deleted.json["state"]) == (200, "destroying")


async def test_any_name_finds_its_sandbox(world: World) -> None:
    for name in ("a b/c", "50%25", "ünïcode ✓", "paginated ", "a?b#c", "..", "x/../y"):
        sandbox = await world.create(name=name)
        read = await world.client.call("GET", f"/sandbox/{quote(name, safe='')}")
        assert (read.status, read.json["id"]) == (200, sandbox["id"])
        url = await world.client.call("GET", f"/sandbox/{quote(name, safe='')}/toolbox-proxy-url")
        assert (url.status, url.json) == (200, {"url": f"{world.client.url}/toolbox"})


async def test_the_id_wins_over_a_name_that_looks_like_it(world: World) -> None:
    first = await world.create()
    await world.create(name=first["id"] + "x")
    second = await world.client.call("GET", f"/sandbox/{first['id']}")
    assert second.json["id"] == first["id"]


async def test_every_change_keeps_its_cause(world: World) -> None:
    sandbox = await world.create()
    async with world.runner.working():
        await world.client.call("POST", f"/sandbox/{sandbox['id']}/stop")
        await world.client.call("DELETE", f"/sandbox/{sandbox['id']}")
    answer = await world.client.call("GET", f"/_sandyard/sandboxes/{sandbox['id']}")
    told = [(change["state"], change["cause"]) for change in answer.json["history"]]
    assert told[:5] == [
        ("creating", "created by a request"),
        ("started", "created by the runner"),
        ("stopping", "stop by a request"),
        ("stopped", "stopped by the runner"),
        ("destroying", "deleted by a request"),
    ]
