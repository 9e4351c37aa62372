"""Snapshots: made from images and builds, listed, deleted, activated, used; and what a failure leaves behind."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import uuid4

import daytona_api_client as client
import pytest

from sandyard.clock import ManualClock
from sandyard_api.jobs.client import LeaseVoid
from sandyard_api.jobs.wire import ImageJob, ImageProgress, ImageResult, ImageStep
from tests.api.conftest import World, open_world
from tests.api.doubles import image_badly
from tests.api.test_coverage import check_schema, description

__all__ = ["description"]

IMAGE = "debian:bookworm-slim"
DOCKERFILE = "FROM debian:bookworm-slim\nRUN true\n"

REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({}, 400, "name must be a string"),
    ({"name": 5, "imageName": IMAGE}, 400, "name must be a string"),
    ({"name": "s"}, 400, "Must specify an image name when not using a build info entry"),
    (
        {"name": "s", "imageName": IMAGE, "buildInfo": {"dockerfileContent": DOCKERFILE}},
        400,
        "Cannot specify an image name when using a build info entry",
    ),
    (
        {"name": "s", "entrypoint": ["x"], "buildInfo": {"dockerfileContent": DOCKERFILE}},
        400,
        "Cannot specify an entrypoint when using a build info entry",
    ),
    (
        {"name": "a b", "imageName": IMAGE},
        400,
        "Invalid snapshot name format. May contain letters, digits, dots, colons, and dashes",
    ),
    ({"name": "<b>x</b>", "imageName": IMAGE}, 400, "name must not contain HTML tags, URLs, or control characters"),
    (
        {"name": "s", "imageName": "debian"},
        400,
        "Image name must include a tag (e.g., ubuntu:22.04) or digest (@sha256:...)",
    ),
    (
        {"name": "s", "imageName": "localhost:5000/debian"},
        400,
        "Image name must include a tag (e.g., ubuntu:22.04) or digest (@sha256:...)",
    ),
    ({"name": "s", "imageName": "debian:latest"}, 400, 'Images with tag ":latest" are not allowed'),
    ({"name": "s", "imageName": "De bian:12"}, 400, "Image name 'De bian:12' is not an image reference"),
    ({"name": "s", "imageName": IMAGE, "cpu": -1}, 400, "cpu must not be less than 0"),
    ({"name": "s", "imageName": IMAGE, "entrypoint": "x"}, 400, "entrypoint must be an array"),
    ({"name": "s", "imageName": IMAGE, "entrypoint": [1]}, 400, "each value in entrypoint must be a string"),
    ({"name": "s", "imageName": IMAGE, "regionId": "mars"}, 404, "Region not found"),
    (
        {"name": "s", "imageName": IMAGE, "sandboxClass": "windows"},
        400,
        "No runners are configured in region 'local' for sandbox class 'windows'. "
        "Try a different region or sandbox class.",
    ),
    (
        {"name": "s", "imageName": "daytonaio/workspace-browser:1.0"},
        400,
        "Image daytonaio/workspace-browser:1.0 is part of the hosted platform and cannot be used here; "
        "name another image",
    ),
    ({"name": "s", "buildInfo": {"dockerfileContent": ""}}, 400, "buildInfo.dockerfileContent must not be empty"),
    (
        {"name": "s", "buildInfo": {"dockerfileContent": DOCKERFILE, "contextHashes": [1]}},
        400,
        "each value in buildInfo.contextHashes must be a string",
    ),
    (
        {"name": "s", "buildInfo": {"dockerfileContent": DOCKERFILE, "contextHashes": ["../../x"]}},
        400,
        "Build contexts cannot be used: Object storage is not configured",
    ),
    (
        {"name": "s", "imageName": IMAGE, "gpu": 1},
        400,
        "No available runners for GPU type any: no runtime of Sandyard hands GPUs to sandboxes",
    ),
]


async def create(world: World, **body: Any) -> dict[str, Any]:
    """A snapshot as its create request answers."""
    answer = await world.client.call("POST", "/snapshots", {"name": "mine", "imageName": IMAGE} | body)
    assert answer.status == 200, answer.body
    made: dict[str, Any] = answer.json
    return made


async def made(world: World, **body: Any) -> dict[str, Any]:
    """A snapshot that a runner has prepared."""
    snapshot = await create(world, **body)
    await world.runner.work_once()
    answer = await world.client.call("GET", f"/snapshots/{snapshot['id']}")
    ready: dict[str, Any] = answer.json
    return ready


async def test_a_snapshot_of_an_image_becomes_active_with_size_and_entrypoint(either_world: World) -> None:
    snapshot = await create(either_world, cpu=2, memory=4, disk=8)
    assert (snapshot["state"], snapshot["imageName"], snapshot["general"]) == ("pending", IMAGE, False)
    assert (snapshot["cpu"], snapshot["mem"], snapshot["disk"], snapshot["gpu"]) == (2, 4, 8, 0)
    for key in ("size", "entrypoint", "errorReason", "lastUsedAt", "sourceSandboxId"):
        assert snapshot[key] is None
    await either_world.runner.work_once()
    [job] = either_world.runner.image_jobs
    assert (job.id, job.source.reference, job.source.dockerfile) == (snapshot["id"], IMAGE, None)
    ready = (await either_world.client.call("GET", "/snapshots/mine")).json
    assert (ready["state"], ready["size"], ready["entrypoint"]) == ("active", 1.5, ["sleep", "infinity"])
    assert ready["initialRunnerId"] == "runner-1"


async def test_a_failed_pull_says_why_and_does_not_stay_pending(either_world: World) -> None:
    either_world.runner.play_image = image_badly
    snapshot = await made(either_world)
    assert (snapshot["state"], snapshot["errorReason"]) == ("error", "cannot pull debian:12: no such host")
    said = await either_world.client.call("GET", "/snapshots/mine/build-logs?follow=true")
    assert said.body.decode() == f"Preparing image {IMAGE}\ncannot pull debian:12: no such host\n"
    use = await either_world.client.call("POST", "/sandbox", {"snapshot": "mine"})
    assert (use.status, use.json["message"]) == (400, "Snapshot mine is error")
    assert (await either_world.client.call("GET", "/sandbox")).json["items"] == []


async def test_a_failed_build_is_told_apart(world: World) -> None:
    world.runner.play_image = image_badly
    snapshot = await create(world, imageName=None, buildInfo={"dockerfileContent": DOCKERFILE})
    await world.runner.work_once()
    assert (await world.client.call("GET", f"/snapshots/{snapshot['id']}")).json["state"] == "build_failed"


async def test_what_cannot_be_is_refused_in_the_platforms_words(world: World) -> None:
    for body, status, message in REFUSED:
        answer = await world.client.call("POST", "/snapshots", body)
        assert (answer.status, answer.json["message"]) == (status, message), body
    assert (await world.client.call("GET", "/snapshots")).json["total"] == 3


async def test_a_name_is_taken_once_and_free_after_a_delete(either_world: World) -> None:
    first = await create(either_world, name="team/base:v1.0")
    again = await either_world.client.call("POST", "/snapshots", {"name": "team/base:v1.0", "imageName": IMAGE})
    message = 'Snapshot with name "team/base:v1.0" already exists for this organization'
    assert (again.status, again.json["message"]) == (409, message)
    found = await either_world.client.call("GET", "/snapshots/team%2Fbase%3Av1.0")
    assert found.json["id"] == first["id"]
    gone = await either_world.client.call("DELETE", f"/snapshots/{first['id']}")
    assert (gone.status, gone.body) == (200, b"")
    assert (await either_world.client.call("GET", f"/snapshots/{first['id']}")).status == 404
    await create(either_world, name="team/base:v1.0")


async def test_deleting_takes_an_id_and_no_general_one(world: World) -> None:
    by_name = await world.client.call("DELETE", "/snapshots/mine")
    assert (by_name.status, by_name.json["message"]) == (400, "Validation failed (uuid is expected)")
    default = (await world.client.call("GET", "/snapshots/sandyard-default")).json
    answer = await world.client.call("DELETE", f"/snapshots/{default['id']}")
    assert (answer.status, answer.json["message"]) == (403, "You cannot delete a general snapshot")
    unknown = str(uuid4())
    answer = await world.client.call("DELETE", f"/snapshots/{unknown}")
    assert (answer.status, answer.json["message"]) == (404, f"Snapshot with ID or name {unknown} not found")


async def test_deleting_one_that_is_being_built_voids_the_runners_lease(world: World) -> None:
    snapshot = await create(world)
    world.runner.play_image = lambda job: []
    await world.runner.claim()
    [job] = world.runner.image_jobs
    await world.client.call("DELETE", f"/snapshots/{snapshot['id']}")
    with pytest.raises(LeaseVoid):
        await world.internal.progress_image(job.id, ImageProgress(job.lease))
    with pytest.raises(LeaseVoid):
        await world.internal.finish_image(job.id, ImageResult(job.lease, ok=True))
    assert (await world.client.call("GET", "/snapshots")).json["total"] == 3


async def test_the_general_snapshots_are_rows_and_listed_last(either_world: World) -> None:
    await made(either_world)
    page = (await either_world.client.call("GET", "/snapshots?limit=2&page=1")).json
    assert (page["total"], page["page"], page["totalPages"], len(page["items"])) == (4, 1, 2, 2)
    assert page["items"][0]["name"] == "mine"
    everything = (await either_world.client.call("GET", "/snapshots?sort=name&order=asc")).json["items"]
    assert [item["name"] for item in everything] == ["mine", "sandyard-default", "sandyard-large", "sandyard-medium"]
    for part in ("large", "LARGE"):
        assert (await either_world.client.call("GET", f"/snapshots?name={part}")).json["total"] == 1
    assert (await either_world.client.call("GET", "/snapshots?name=%25")).json["total"] == 0


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("page=0", "page must not be less than 1"),
        ("limit=201", "limit must not be greater than 200"),
        ("limit=x", "limit must be a number conforming to the specified constraints"),
        ("sort=size", "sort must be one of the following values: name, state, lastUsedAt, createdAt"),
        ("order=up", "order must be one of the following values: asc, desc"),
    ],
)
async def test_a_list_that_cannot_be_is_refused(world: World, query: str, message: str) -> None:
    answer = await world.client.call("GET", f"/snapshots?{query}")
    assert (answer.status, answer.json["message"]) == (400, message)


async def test_a_sandbox_takes_resources_and_entrypoint_from_its_snapshot_by_name_or_id(either_world: World) -> None:
    snapshot = await made(either_world, cpu=2, memory=4, disk=8, entrypoint=["/bin/serve", "-v"])
    assert snapshot["entrypoint"] == ["/bin/serve", "-v"]
    for key in ("mine", snapshot["id"]):
        sandbox = await either_world.create(snapshot=key)
        assert (sandbox["snapshot"], sandbox["cpu"], sandbox["memory"], sandbox["disk"]) == ("mine", 2, 4, 8)
        spec = either_world.runner.jobs[-1].spec
        assert (spec.image, spec.entrypoint) == (IMAGE, ("/bin/serve", "-v"))
        assert spec.source is not None
        assert spec.source.reference == IMAGE
    assert (await either_world.client.call("GET", "/snapshots/mine")).json["lastUsedAt"] is not None


async def test_the_vendors_names_mean_ours(world: World) -> None:
    sandbox = await world.create(snapshot="daytona-medium")
    assert (sandbox["snapshot"], sandbox["cpu"], sandbox["memory"]) == ("sandyard-medium", 2, 4)
    await made(world, imageName="daytonaio/sandbox:0.5.1")
    assert world.runner.image_jobs[-1].source.reference is None
    build = {"dockerfileContent": "FROM docker.io/daytonaio/sandbox:0.5.1\n"}
    assert (await world.client.call("POST", "/sandbox", {"buildInfo": build})).status == 200


async def test_equal_builds_have_one_image(world: World) -> None:
    build = {"dockerfileContent": DOCKERFILE}
    first = await create(world, name="one", imageName=None, buildInfo=build)
    second = await create(world, name="two", imageName=None, buildInfo=build)
    other = await create(
        world, name="three", imageName=None, buildInfo={"dockerfileContent": DOCKERFILE + "RUN false\n"}
    )
    sandbox = (await world.client.call("POST", "/sandbox", {"buildInfo": build})).json
    assert sandbox["state"] == "pending_build"
    references = [one["buildInfo"]["snapshotRef"] for one in (first, second, sandbox)]
    assert len(set(references)) == 1
    assert other["ref"] not in references
    world.runner.play_image = lambda job: []
    [job] = await world.runner.claim()
    assert job.spec.source is not None
    assert (job.spec.image, job.spec.source.dockerfile) == (references[0], DOCKERFILE)
    assert {one.source.dockerfile for one in world.runner.image_jobs} == {DOCKERFILE, DOCKERFILE + "RUN false\n"}
    assert set(references) <= set(await world.internal.wanted_images())


async def test_an_image_that_nothing_is_made_from_is_not_wanted(world: World) -> None:
    snapshot = await create(world, imageName=None, buildInfo={"dockerfileContent": DOCKERFILE})
    assert list(await world.internal.wanted_images()) == [snapshot["ref"]]
    await world.client.call("DELETE", f"/snapshots/{snapshot['id']}")
    assert list(await world.internal.wanted_images()) == []


async def test_the_log_is_followed_live_to_the_end_of_the_build(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandyard_api.following.RECHECK_SECONDS", 3600)  # by hints, and not by a look from time to time
    snapshot = await create(world, imageName=None, buildInfo={"dockerfileContent": DOCKERFILE})
    url = (await world.client.call("GET", "/snapshots/mine/build-logs-url")).json["url"]
    assert url == f"{world.client.url}/api/snapshots/{snapshot['id']}/build-logs"
    world.runner.play_image = lambda job: []
    await world.runner.claim()
    [job] = world.runner.image_jobs
    headers = {"Authorization": "Bearer sy_test-key-of-the-owner"}
    async with world.client.session.get(f"{url}?follow=true", headers=headers) as answer:
        assert answer.status == 200
        assert await answer.content.readline() == b"Preparing the build\n"
        await world.internal.progress_image(job.id, ImageProgress(job.lease, ImageStep.BUILDING))
        assert (await world.client.call("GET", "/snapshots/mine")).json["state"] == "building"
        await world.internal.append_build_log(job.id, "Step 1/2\n")
        assert await answer.content.readline() == b"Step 1/2\n"
        await world.internal.finish_image(job.id, ImageResult(job.lease, ok=False, reason="exit 3"))
        async with asyncio.timeout(60):
            assert await answer.content.read() == b""


async def test_activation_follows_the_platforms_rules(tmp_path: Any) -> None:
    clock = ManualClock()
    async with open_world(f"sqlite:///{tmp_path / 'test.db'}", clock=clock, timer_seconds=1e9) as world:
        await world.runner.beat()
        await made(world)
        answer = await world.client.call("POST", "/snapshots/mine/activate")
        assert (answer.status, answer.json["message"]) == (400, "Snapshot mine is already active")
        for _ in range(2):
            assert (await world.client.call("POST", "/snapshots/mine/deactivate")).status == 204
        use = await world.client.call("POST", "/sandbox", {"snapshot": "mine"})
        assert (use.status, use.json["message"]) == (400, "Snapshot mine is inactive")
        soon = await world.client.call("POST", "/snapshots/mine/activate")
        message = "Snapshot deactivation is still in progress. Please try again in a few minutes."
        assert (soon.status, soon.json["message"]) == (400, message)
        await clock.advance(timedelta(minutes=10).total_seconds())
        assert (await world.client.call("POST", "/snapshots/mine/activate")).json["state"] == "pending"
        again = await world.client.call("POST", "/snapshots/mine/activate")
        message = "Snapshot mine cannot be activated - it is in pending state"
        assert (again.status, again.json["message"]) == (400, message)
        await world.runner.work_once()
        assert (await world.client.call("GET", "/snapshots/mine")).json["state"] == "active"


async def test_general_snapshots_are_not_ours_to_change(world: World) -> None:
    for verb in ("activate", "deactivate"):
        answer = await world.client.call("POST", f"/snapshots/sandyard-default/{verb}")
        assert (answer.status, answer.json["message"]) == (
            404,
            "Snapshot with ID or name sandyard-default not found",
        )


async def test_time_limits_end_what_hangs_and_what_nobody_uses(tmp_path: Any) -> None:
    clock = ManualClock()
    async with open_world(f"sqlite:///{tmp_path / 'test.db'}", clock=clock, timer_seconds=1e9) as world:
        await world.runner.beat()
        await made(world, name="used")
        await create(world, name="hangs")
        await clock.advance(timedelta(minutes=15).total_seconds())
        await world.plane.timers.look()
        hung = (await world.client.call("GET", "/snapshots/hangs")).json
        assert (hung["state"], hung["errorReason"]) == ("error", "Timeout while waiting for a runner")
        await clock.advance(timedelta(days=14).total_seconds())
        await world.plane.timers.look()
        assert (await world.client.call("GET", "/snapshots/used")).json["state"] == "inactive"
        assert (await world.client.call("GET", "/snapshots/sandyard-default")).json["state"] == "active"


async def test_work_that_no_runner_ends_is_given_up(tmp_path: Any) -> None:
    clock = ManualClock()
    async with open_world(f"sqlite:///{tmp_path / 'test.db'}", clock=clock, timer_seconds=1e9) as world:
        await world.runner.beat()
        await create(world)
        world.runner.play_image = lambda job: []
        leases: list[ImageJob] = []
        for _ in range(6):
            await world.runner.claim()
            leases = world.runner.image_jobs
            await clock.advance(31)
        assert len(leases) == 5
        await world.plane.timers.look()
        snapshot = (await world.client.call("GET", "/snapshots/mine")).json
        assert (snapshot["state"], snapshot["errorReason"]) == (
            "error",
            "given up after 5 attempts: no runner came to an end",
        )


async def test_every_route_knows_only_what_is_there(world: World) -> None:
    for method, path in (
        ("GET", "/snapshots/nothing"),
        ("POST", "/snapshots/nothing/activate"),
        ("POST", "/snapshots/nothing/deactivate"),
        ("GET", "/snapshots/nothing/build-logs"),
        ("GET", "/snapshots/nothing/build-logs-url"),
        ("GET", "/snapshots/%00"),
    ):
        answer = await world.client.call(method, path)
        assert answer.status == 404, path


async def test_answers_fit_the_description_and_the_clients_models(world: World, description: dict[str, Any]) -> None:
    ready = await made(world)
    built = await create(world, name="built", imageName=None, buildInfo={"dockerfileContent": DOCKERFILE})
    for value in (ready, built):
        check_schema(description, "SnapshotDto", value)
        assert client.SnapshotDto.from_dict(value) is not None
    page = (await world.client.call("GET", "/snapshots")).json
    check_schema(description, "PaginatedSnapshots", page)
    assert client.PaginatedSnapshots.from_dict(page) is not None
    check_schema(description, "Url", (await world.client.call("GET", "/snapshots/mine/build-logs-url")).json)
