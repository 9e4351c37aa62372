"""Snapshots that are made from sandboxes: what they have of them, and what becomes of those that fail."""

from sandyard_api.jobs.wire import JobResult
from sandyard_api.sandboxes.states import Observed
from tests.api.conftest import World
from tests.api.test_snapshots import made


async def test_a_snapshot_of_a_sandbox_has_its_resources_and_is_active_at_the_end(either_world: World) -> None:
    await made(either_world, name="base", cpu=2, memory=4, disk=8, entrypoint=["/serve"])
    sandbox = await either_world.create(snapshot="base")
    path = f"/sandbox/{sandbox['id']}/snapshot"
    asked = await either_world.client.call("POST", path, {"name": "kept"})
    assert (asked.status, asked.json["state"]) == (200, "snapshotting")
    begun = (await either_world.client.call("GET", "/snapshots/kept")).json
    assert (begun["state"], begun["sourceSandboxId"]) == ("snapshotting", sandbox["id"])
    [job] = await either_world.runner.claim()
    assert (job.kind, job.image) == ("commit", f"sandyard/snapshot:{begun['id']}")
    await either_world.runner.answer(job)
    ready = (await either_world.client.call("GET", "/snapshots/kept")).json
    assert (ready["state"], ready["cpu"], ready["mem"], ready["disk"]) == ("active", 2, 4, 8)
    assert ready["entrypoint"] == ["/serve"]
    assert job.image in await either_world.internal.wanted_images()
    listed = await either_world.client.call("GET", f"/snapshots?sourceSandboxId={sandbox['id']}")
    assert [one["name"] for one in listed.json["items"]] == ["kept"]
    assert (await either_world.create(snapshot="kept"))["snapshot"] == "kept"
    assert either_world.runner.jobs[-1].spec.image == job.image


async def test_a_snapshot_of_a_sandbox_that_fails_says_why(world: World) -> None:
    sandbox = await world.create()
    await world.client.call("POST", f"/sandbox/{sandbox['id']}/snapshot", {"name": "kept"})
    [job] = await world.runner.claim()
    failed = JobResult(job.lease, ok=False, observed=Observed.STARTED, reason="no space left on device")
    await world.internal.finish(job.id, failed)
    kept = (await world.client.call("GET", "/snapshots/kept")).json
    assert (kept["state"], kept["errorReason"]) == ("error", "no space left on device")
    assert (await world.client.call("GET", f"/sandbox/{sandbox['id']}")).json["state"] == "started"


async def test_a_snapshot_of_a_sandbox_that_is_deleted_meanwhile_ends(world: World) -> None:
    sandbox = await world.create()
    await world.client.call("POST", f"/sandbox/{sandbox['id']}/snapshot", {"name": "kept"})
    await world.client.call("DELETE", f"/sandbox/{sandbox['id']}")
    await world.plane.timers.look()
    kept = (await world.client.call("GET", "/snapshots/kept")).json
    assert (kept["state"], kept["errorReason"]) == ("error", "the sandbox was deleted or failed meanwhile")


async def test_a_snapshot_of_a_sandbox_that_cannot_be_is_refused_and_leaves_none(world: World) -> None:
    sandbox = await world.create()
    path = f"/sandbox/{sandbox['id']}/snapshot"
    name_rule = "Invalid snapshot name format. May contain letters, digits, dots, colons, and dashes"
    for body, status, message in (
        ({}, 400, "name must be a string"),
        ({"name": "a b"}, 400, name_rule),
        ({"name": "x", "includeMemory": True}, 400, "Container sandboxes do not support memory snapshots"),
        ({"name": "x", "includeMemory": "yes"}, 400, "includeMemory must be a boolean value"),
    ):
        answer = await world.client.call("POST", path, body)
        assert (answer.status, answer.json["message"]) == (status, message), body
    await made(world)
    taken = await world.client.call("POST", path, {"name": "mine"})
    message = 'Snapshot with name "mine" already exists for this organization'
    assert (taken.status, taken.json["message"]) == (409, message)
    assert (await world.client.call("GET", f"/sandbox/{sandbox['id']}")).json["state"] == "started"
    missing = await world.client.call("POST", "/sandbox/nothing/snapshot", {"name": "x"})
    assert missing.status == 404
    await world.client.call("DELETE", f"/sandbox/{sandbox['id']}")
    going = await world.client.call("POST", path, {"name": "late"})
    assert going.status in (400, 404, 409)
    assert (await world.client.call("GET", "/snapshots/late")).status == 404
