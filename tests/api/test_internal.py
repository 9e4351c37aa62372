"""What runners and proxies are told and may tell, over the real client and a unix socket."""

import asyncio
import base64
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from msgspec.structs import replace

from sandyard.clock import ManualClock, SystemClock
from sandyard_api.jobs.client import (
    BadKey,
    ControlPlaneRefused,
    ControlPlaneUnreachable,
    HttpControlPlane,
    LeaseVoid,
    UnknownRoute,
)
from sandyard_api.jobs.wire import (
    ClaimRequest,
    CommandRecord,
    JobKind,
    JobProgress,
    JobResult,
    Observation,
    SessionRecord,
)
from sandyard_api.sandboxes.states import Desired, Observed
from tests.api.conftest import API_KEY, World, open_world
from tests.api.doubles import RUNNER_ID
from tests.factories import NOON

CLOCK = SystemClock()


def saw(sandbox_id: str, observed: Observed, reason: str) -> Observation:
    return Observation(sandbox_id, observed, reason, CLOCK.now())


async def test_a_claim_waits_for_work_and_gets_it_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandyard_api.dispatch.service.RECHECK_SECONDS", 3600)  # a hint, and not a look by chance
    claiming = asyncio.create_task(world.runner.claim(wait_seconds=60))
    done, _ = await asyncio.wait({claiming}, timeout=0.3)
    assert not done
    made = await world.client.call("POST", "/sandbox", {"buildInfo": {"dockerfileContent": "FROM x"}})
    [job] = await claiming
    assert (job.kind, job.spec.sandbox_id) == (JobKind.CREATE, made.json["id"])


async def test_a_runner_that_hangs_up_takes_no_work_with_it(world: World) -> None:
    claiming = asyncio.create_task(world.runner.claim(wait_seconds=20))
    done, _ = await asyncio.wait({claiming}, timeout=0.3)
    assert not done
    claiming.cancel()
    await asyncio.gather(claiming, return_exceptions=True)
    async with world.runner.working():
        answer = await world.client.call("POST", "/sandbox", {})
    assert answer.json["state"] == "started"


async def test_a_lease_of_somebody_else_is_void(world: World) -> None:
    await world.client.call("POST", "/sandbox", {"buildInfo": {"dockerfileContent": "FROM x"}})
    [job] = await world.runner.claim()
    with pytest.raises(LeaseVoid):
        await world.internal.progress(job.id, JobProgress("not mine", Observed.STARTED))
    with pytest.raises(LeaseVoid):
        await world.internal.finish("no such job", JobResult(job.lease, True, Observed.STARTED))
    await world.internal.finish(job.id, JobResult(job.lease, True, Observed.STARTED))
    with pytest.raises(LeaseVoid):
        await world.internal.finish(job.id, JobResult(job.lease, True, Observed.STARTED))


async def test_a_job_whose_runner_fell_silent_goes_to_another_and_the_first_is_told(tmp_path: object) -> None:
    clock = ManualClock()
    async with open_world(f"sqlite:///{tmp_path}/test.db", clock=clock, lease_seconds=30) as world:
        await world.runner.beat()
        await world.client.call("POST", "/sandbox", {"buildInfo": {"dockerfileContent": "FROM x"}})
        [first] = await world.internal.claim(ClaimRequest(RUNNER_ID, wait_seconds=0))
        await clock.advance(20)
        await world.internal.progress(first.id, JobProgress(first.lease))
        await clock.advance(20)
        assert await world.internal.claim(ClaimRequest(RUNNER_ID, wait_seconds=0)) == []
        await clock.advance(20)
        [second] = await world.internal.claim(ClaimRequest(RUNNER_ID, wait_seconds=0))
        assert (second.id, second.lease != first.lease) == (first.id, True)
        with pytest.raises(LeaseVoid):
            await world.internal.finish(first.id, JobResult(first.lease, True, Observed.STARTED))
        await world.internal.finish(second.id, JobResult(second.lease, True, Observed.STARTED))


async def test_a_sandbox_that_died_is_shown_stopped_with_its_cause(world: World) -> None:
    sandbox = await world.create()
    await world.internal.observe([saw(sandbox["id"], Observed.STOPPED, "its first process ended with 137")])
    read = await world.client.call("GET", f"/_sandyard/sandboxes/{sandbox['id']}")
    assert (read.json["observed"], read.json["desired"]) == ("stopped", "stopped")
    assert read.json["history"][-1]["cause"] == "its first process ended with 137"


async def test_a_sandbox_that_broke_shows_why(world: World) -> None:
    sandbox = await world.create()
    await world.internal.observe([saw(sandbox["id"], Observed.ERROR, "killed: out of memory")])
    read = await world.client.call("GET", f"/sandbox/{sandbox['id']}")
    assert (read.json["state"], read.json["errorReason"]) == ("error", "killed: out of memory")


async def test_a_sandbox_that_vanished_is_an_error_and_not_forgotten(world: World) -> None:
    sandbox = await world.create()
    await world.internal.observe([saw(sandbox["id"], Observed.DESTROYED, "")])
    read = await world.client.call("GET", f"/sandbox/{sandbox['id']}")
    assert (read.json["state"], read.json["errorReason"]) == ("error", "removed outside Sandyard")


async def test_a_note_is_kept_in_the_history_and_changes_no_state(world: World) -> None:
    sandbox = await world.create()
    text = "uses 4.0 GiB of disk, more than its 3 GiB; nothing was stopped"
    note = Observation(sandbox["id"], Observed.STARTED, text, datetime.now(UTC), is_note=True)
    await world.internal.observe([note])
    read = (await world.client.call("GET", f"/_sandyard/sandboxes/{sandbox['id']}")).json
    assert (read["history"][-1]["state"], read["history"][-1]["cause"]) == ("started", text)
    assert (await world.client.call("GET", f"/sandbox/{sandbox['id']}")).json["state"] == "started"


async def test_observations_of_unknown_sandboxes_and_during_a_job_change_nothing(world: World) -> None:
    sandbox = await world.create()
    stopping = asyncio.create_task(world.client.call("POST", f"/sandbox/{sandbox['id']}/stop"))
    [job] = await world.runner.claim(wait_seconds=30)
    seen = [saw("nobody", Observed.STOPPED, "x"), saw(sandbox["id"], Observed.ERROR, "x")]
    await world.internal.observe(seen)
    await world.runner.answer(job)
    assert (await stopping).json["state"] == "stopped"


async def test_wanted_tells_what_should_be_there(world: World) -> None:
    sandbox = await world.create(name="web")
    [wanted] = await world.internal.wanted(RUNNER_ID)
    assert (wanted.spec.sandbox_id, wanted.desired, wanted.observed) == (
        sandbox["id"],
        Desired.STARTED,
        Observed.STARTED,
    )
    assert wanted.has_job is False
    assert wanted.spec.door_secret == world.runner.jobs[0].spec.door_secret
    assert await world.internal.wanted("somebody else") == []
    await world.client.call("DELETE", "/sandbox/web")
    [wanted] = await world.internal.wanted(RUNNER_ID)
    assert (wanted.desired, wanted.has_job) == (Desired.DESTROYED, True)
    await world.runner.work_once()
    assert await world.internal.wanted(RUNNER_ID) == []


async def test_a_route_is_found_by_id_name_and_token_and_the_token_dies_with_the_next_start(world: World) -> None:
    sandbox = await world.create(name="my web", public=True)
    token = (await world.client.call("GET", "/sandbox/my%20web/ports/1/preview-url")).json["token"]
    routes = [replace(await world.internal.route(key), told_at=None) for key in (sandbox["id"], "my web", token)]
    assert routes[0] == routes[1] == routes[2]
    assert (routes[0].state, routes[0].public, routes[0].preview_token) == ("started", True, token)
    assert routes[0].runner_url == "unix:/nowhere/runner.sock"
    assert routes[0].door_secret == world.runner.jobs[0].spec.door_secret
    async with world.runner.working():
        await world.client.call("POST", f"/sandbox/{sandbox['id']}/stop")
        await world.client.call("POST", f"/sandbox/{sandbox['id']}/start")
    with pytest.raises(UnknownRoute):
        await world.internal.route(token)
    assert (await world.internal.route(sandbox["id"])).door_secret != routes[0].door_secret


async def test_there_is_no_route_to_what_is_not_there(world: World) -> None:
    sandbox = await world.create()
    await world.client.call("DELETE", f"/sandbox/{sandbox['id']}")
    assert (await world.internal.route(sandbox["id"])).state == "destroying"
    await world.runner.work_once()
    for key in (sandbox["id"], "nobody", "a/b", ".."):
        with pytest.raises(UnknownRoute):
            await world.internal.route(key)


async def test_keys_are_checked(world: World) -> None:
    grant = await world.internal.check_key(API_KEY)
    current = await world.client.call("GET", "/api-keys/current")
    assert grant.user_id == current.json["userId"]
    assert "write:sandboxes" in grant.permissions
    for key in ("", "wrong", "eyJhbGciOi.eyJzdWIi.c2ln", "x" * 5000):
        with pytest.raises(BadKey):
            await world.internal.check_key(key)


async def test_activity_moves_forward_only(world: World) -> None:
    sandbox = await world.create()
    now = CLOCK.now()
    await world.internal.touch({sandbox["id"]: now + timedelta(days=1), "nobody": now})
    read = await world.client.call("GET", f"/sandbox/{sandbox['id']}")
    assert sandbox["lastActivityAt"] < read.json["lastActivityAt"]
    assert read.json["lastActivityAt"] < (now + timedelta(hours=1)).isoformat()
    await world.internal.touch({sandbox["id"]: now - timedelta(hours=1)})
    again = await world.client.call("GET", f"/sandbox/{sandbox['id']}")
    assert again.json["lastActivityAt"] == read.json["lastActivityAt"]


async def test_without_the_internal_token_nothing_is_told(world: World) -> None:
    stranger = HttpControlPlane(f"unix:{world.internal_socket}", "wrong")
    with pytest.raises(ControlPlaneRefused):
        await stranger.wanted(RUNNER_ID)
    await stranger.close()
    answer = await world.client.call("GET", "/api/../internal/wanted/x")
    assert answer.status == 404


async def test_a_control_plane_that_is_gone_is_unreachable(tmp_path: object) -> None:
    async with HttpControlPlane(f"unix:{tmp_path}/nobody.sock", "x") as nobody:
        with pytest.raises(ControlPlaneUnreachable):
            await nobody.wanted("r")


async def test_messages_that_are_no_messages_are_refused_with_the_field(world: World) -> None:
    connector = aiohttp.UnixConnector(str(world.internal_socket))
    headers = {"Authorization": "Bearer internal-token"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        async with session.post("http://x/internal/jobs/claim", data=b'{"runner_id": 5}') as answer:
            assert answer.status == 400
            assert "$.runner_id" in (await answer.json())["message"]
        body = b'{"observations": [{"sandbox_id": "s", "observed": "flying", "reason": "", "at": ""}]}'
        async with session.post("http://x/internal/observations", data=body) as answer:
            assert answer.status == 400
            assert "$.observations[0].observed" in (await answer.json())["message"]


def command(sandbox_id: str, **values: object) -> CommandRecord:
    record = {"session_id": "s/1", "command_id": "c1", "command": "make\x00", "created_at": NOON} | values
    return CommandRecord(sandbox_id, **record)  # type: ignore[arg-type]


async def test_sessions_and_commands_can_be_read_after_the_sandbox_is_gone(either_world: World) -> None:
    world = either_world
    sandbox = await world.create()
    sandbox_id = sandbox["id"]
    await world.internal.record([SessionRecord(sandbox_id, "s/1", NOON)], [command(sandbox_id, started_at=NOON)])
    end = command(
        sandbox_id,
        started_at=NOON,
        finished_at=NOON + timedelta(seconds=3),
        exit_code=7,
        log_size=9,
        last_lines=base64.b64encode(b"done \xff\n").decode(),
    )
    await world.internal.record([SessionRecord(sandbox_id, "s/1", NOON, NOON + timedelta(minutes=1))], [end])
    await world.internal.record([], [command(sandbox_id, started_at=NOON)])
    await world.client.call("DELETE", f"/sandbox/{sandbox_id}")
    await world.runner.work_once()
    path = f"/_sandyard/sandboxes/{sandbox_id}/sessions"
    [session] = (await world.client.call("GET", path)).json["sessions"]
    assert (session["id"], session["endedAt"]) == ("s/1", "2026-03-04T12:01:00Z")
    whole = await world.client.call("GET", f"{path}/s%2F1")
    assert [one["id"] for one in whole.json["commands"]] == ["c1"]
    one = await world.client.call("GET", f"{path}/s%2F1/commands/c1")
    assert (one.json["exitCode"], one.json["logSize"], one.json["lastLines"]) == (7, 9, "done \ufffd\n")
    assert (one.json["command"], one.json["finishedAt"]) == ("make\ufffd", "2026-03-04T12:00:03Z")
    assert (await world.client.call("GET", f"{path}/nope")).status == 404
    assert (await world.client.call("GET", f"{path}/s%2F1/commands/nope")).status == 404


async def test_records_of_unknown_sandboxes_are_dropped(world: World) -> None:
    await world.internal.record([SessionRecord("nobody", "s", NOON)], [command("nobody")])
    sandbox = await world.create()
    await world.internal.record([], [command(sandbox["id"])])
    whole = await world.client.call("GET", f"/_sandyard/sandboxes/{sandbox['id']}/sessions")
    assert [one["id"] for one in whole.json["sessions"]] == ["s/1"]


async def test_capabilities_are_what_the_heartbeat_told(world: World) -> None:
    answer = await world.client.call("GET", "/_sandyard/capabilities")
    [runner] = answer.json["runners"]
    assert (runner["id"], runner["runtime"], runner["alive"]) == (RUNNER_ID, "scripted", True)
    assert runner["capabilities"] == {"cpu": "enforced"}
