"""Volumes: made, found, mounted, deleted; and every word that refuses."""

import asyncio
from pathlib import Path
from typing import Any

import daytona_api_client as client
import pytest

from sandyard.bus.memory import MemoryBus
from sandyard.folders import HostFolder
from sandyard_api.jobs.wire import CHANNEL_VOLUMES, Heartbeat, Mount
from sandyard_api.quotas.limits import Limits
from tests.api.conftest import World, open_world
from tests.api.doubles import RUNNER_ID
from tests.api.test_coverage import check_schema, description

__all__ = ["description"]

UNKNOWN = "00000000-0000-4000-8000-000000000000"


async def a_volume(world: World, name: str = "shared") -> dict[str, Any]:
    answer = await world.client.call("POST", "/volumes", {"name": name})
    assert answer.status == 200, answer.body
    made: dict[str, Any] = answer.json
    return made


def mounted(volume: str, path: str = "/data", **more: str) -> list[dict[str, str]]:
    return [{"volumeId": volume, "mountPath": path, **more}]


async def refusal(world: World, method: str, path: str, body: Any = None) -> tuple[int, str]:
    answer = await world.client.call(method, path, body)
    return answer.status, answer.json["message"]


async def test_a_volume_is_ready_at_once_and_found_by_id_and_name(
    either_world: World, description: dict[str, Any]
) -> None:
    world = either_world
    volume = await a_volume(world, "a name/with blanks")
    assert (volume["state"], volume["errorReason"], volume["lastUsedAt"]) == ("ready", None, None)
    for path in (f"/volumes/{volume['id']}", "/volumes/by-name/a%20name%2Fwith%20blanks"):
        assert (await world.client.call("GET", path)).json == volume
    assert (await world.client.call("GET", "/volumes")).json == [volume]
    check_schema(description, "VolumeDto", volume)
    assert client.VolumeDto.from_dict(volume)


async def test_what_is_not_there_is_a_404_in_the_words_that_clients_look_for(world: World) -> None:
    for method in ("GET", "DELETE"):
        assert await refusal(world, method, f"/volumes/{UNKNOWN}") == (404, f"Volume with ID {UNKNOWN} not found")
    assert await refusal(world, "GET", "/volumes/by-name/nobody") == (404, "Volume with name nobody not found")


NAMES: list[tuple[Any, str]] = [
    ({}, "name must be a string"),
    ({"name": 5}, "name must be a string"),
    ({"name": ""}, "name should not be empty"),
    ({"name": "<b>x</b>"}, "name must not contain HTML tags, URLs, or control characters"),
    ({"name": "host:/etc"}, "name must not begin with host:, which names folders of the host"),
]


async def test_a_name_is_required_safe_and_nobody_elses(either_world: World) -> None:
    world = either_world
    for body, message in NAMES:
        assert await refusal(world, "POST", "/volumes", body) == (400, message), body
    await a_volume(world)
    assert await refusal(world, "POST", "/volumes", {"name": "shared"}) == (
        400,
        "Volume with name shared already exists",
    )


async def test_beyond_the_quota_nothing_is_made_and_the_use_is_counted(tmp_path: Path) -> None:
    limits = Limits(volumes=1, snapshots=1)
    async with open_world(f"sqlite:///{tmp_path / 'test.db'}", limits=limits) as world:
        await world.runner.beat()
        await a_volume(world)
        assert await refusal(world, "POST", "/volumes", {"name": "more"}) == (
            400,
            "Volume quota exceeded. Maximum allowed: 1",
        )
        snapshot = {"name": "one", "imageName": "debian:12"}
        assert (await world.client.call("POST", "/snapshots", snapshot)).status == 200
        assert await refusal(world, "POST", "/snapshots", snapshot | {"name": "two"}) == (
            400,
            "Snapshot quota exceeded. Maximum allowed: 1",
        )
        sandbox = await world.create()
        assert await refusal(world, "POST", f"/sandbox/{sandbox['id']}/snapshot", {"name": "two"}) == (
            400,
            "Snapshot quota exceeded. Maximum allowed: 1",
        )
        usage = (await world.client.call("GET", f"/organizations/{sandbox['organizationId']}/usage")).json
    assert (usage["totalVolumeQuota"], usage["currentVolumeUsage"]) == (1, 1)
    assert (usage["totalSnapshotQuota"], usage["currentSnapshotUsage"]) == (1, 1)


async def test_a_sandbox_mounts_by_id_or_name_and_shows_the_id(either_world: World) -> None:
    world = either_world
    one, two = await a_volume(world, "one"), await a_volume(world, "two")
    asked = [*mounted(one["id"]), *mounted("two", "/other/", subpath="a/b")]
    sandbox = await world.create(volumes=asked)
    assert sandbox["volumes"] == [
        {"volumeId": one["id"], "mountPath": "/data"},
        {"volumeId": two["id"], "mountPath": "/other/", "subpath": "a/b"},
    ]
    assert world.runner.jobs[0].spec.mounts == (
        Mount("/data", volume_id=one["id"]),
        Mount("/other/", volume_id=two["id"], subpath="a/b"),
    )
    used = (await world.client.call("GET", f"/volumes/{one['id']}")).json
    assert used["lastUsedAt"] >= one["createdAt"]


async def test_one_in_use_is_a_409_that_names_a_user_until_the_last_is_deleted(either_world: World) -> None:
    world = either_world
    volume = await a_volume(world)
    message = "Volume cannot be deleted because it is in use by one or more sandboxes (e.g. first)"
    await world.create(name="first", volumes=mounted("shared"))
    fork = await forked(world, "first")
    assert fork["volumes"] == mounted(volume["id"])
    assert await refusal(world, "DELETE", f"/volumes/{volume['id']}") == (409, message)
    await world.client.call("DELETE", f"/sandbox/{fork['id']}")
    await world.client.call("DELETE", "/sandbox/first")
    answer = await world.client.call("DELETE", f"/volumes/{volume['id']}")
    assert (answer.status, answer.body) == (200, b"")


async def test_a_create_and_a_delete_at_once_never_leave_a_sandbox_without_its_volume(either_world: World) -> None:
    world = either_world
    async with world.runner.working():
        for number in range(12):
            volume = await a_volume(world, f"volume-{number}")
            body = {"volumes": mounted(volume["id"])}
            made, deleted = await asyncio.gather(
                world.client.call("POST", "/sandbox", body),
                world.client.call("DELETE", f"/volumes/{volume['id']}"),
            )
            assert (made.status, deleted.status) in {(200, 409), (404, 200)}


async def forked(world: World, name: str) -> dict[str, Any]:
    async with world.runner.working():
        answer = await world.client.call("POST", f"/sandbox/{name}/fork", {})
    made: dict[str, Any] = answer.json
    return made


async def test_a_deleted_one_is_unwanted_its_name_is_free_and_lists_show_it_on_request(either_world: World) -> None:
    world = either_world
    volume, kept = await a_volume(world), await a_volume(world, "kept")
    async with world.bus.subscribe(CHANNEL_VOLUMES) as hints:
        await world.client.call("DELETE", f"/volumes/{volume['id']}")
        assert (await anext(aiter(hints))).payload.decode() == volume["id"]
    assert list(await world.internal.wanted_volumes()) == [kept["id"]]
    assert (await world.client.call("GET", "/volumes")).json == [kept]
    deleted, _ = (await world.client.call("GET", "/volumes?includeDeleted=true")).json
    assert (deleted["name"], deleted["state"]) == ("shared-deleted", "deleted")
    assert (await refusal(world, "DELETE", f"/volumes/{volume['id']}"))[0] == 404
    again = await a_volume(world)
    assert again["id"] != volume["id"]


PATHS = [
    ("data", "must be absolute"),
    ("", "must be absolute"),
    ("/", "cannot mount to the root directory"),
    ("//", "cannot mount to the root directory"),
    ("/a/../b", "cannot contain relative path components"),
    ("/a/..", "cannot contain relative path components"),
    ("/./a", "cannot contain relative path components"),
    ("/a//b", "cannot contain consecutive slashes"),
    *(
        (path, "cannot mount to system directory")
        for path in "/proc /sys /dev /boot /etc /bin /sbin /lib /lib64".split()
    ),
    ("/etc/ssh", "cannot mount to system directory"),
    ("/proc/", "cannot mount to system directory"),
    ("/opt/sandyard", "cannot mount to system directory"),
    ("/run", "cannot mount to system directory"),
    ("/" + "x" * 256, "too long"),
]
SUBPATHS = [
    ("/a", "must be relative"),
    ("..", "cannot contain relative path components"),
    ("a/../../b", "cannot contain relative path components"),
    ("a//b", "cannot contain consecutive slashes"),
    ("x" * 256, "too long"),
]
TYPES: list[tuple[Any, str]] = [
    ("x", "volumes must be an array"),
    (["x"], "volumes.0 must be an object"),
    ([{"mountPath": "/a"}], "volumes.0.volumeId must be a string"),
    ([{"volumeId": "", "mountPath": "/a"}], "volumes.0.volumeId should not be empty"),
    ([{"volumeId": 5, "mountPath": "/a"}], "volumes.0.volumeId must be a string"),
    ([{"volumeId": "v"}], "volumes.0.mountPath must be a string"),
    ([{"volumeId": "v", "mountPath": "/a", "subpath": 1}], "volumes.0.subpath must be a string"),
    ([{"volumeId": "v", "mountPath": "/a"}] * 101, "volumes must contain no more than 100 elements"),
]


async def test_mounts_that_cannot_be_are_refused_and_nothing_is_made(world: World) -> None:
    await a_volume(world)
    refused: list[tuple[Any, int, str]] = [
        *((mounted("shared", path), 400, f"Invalid mount path {path} ({why})") for path, why in PATHS),
        *((mounted("shared", subpath=sub), 400, f"Invalid subpath {sub} ({why})") for sub, why in SUBPATHS),
        *((value, 400, message) for value, message in TYPES),
        (
            mounted("shared") + mounted("shared", "/data/"),
            400,
            "Invalid mount path /data/ (already used by another volume)",
        ),
        (mounted("nobody"), 404, "Volume 'nobody' not found"),
        (
            mounted("host:/srv"),
            400,
            "The host folder /srv cannot be mounted: it is in no folder that SANDYARD_HOST_FOLDERS allows (none)",
        ),
    ]
    for value, status, message in refused:
        assert await refusal(world, "POST", "/sandbox", {"volumes": value}) == (status, message), value
    assert (await world.client.call("GET", "/sandbox")).json["items"] == []
    assert (await world.client.call("GET", "/volumes")).json[0]["lastUsedAt"] is None
    assert await world.runner.claim() == []


async def test_a_key_that_is_the_id_of_one_and_the_name_of_another_is_refused(world: World) -> None:
    one = await a_volume(world)
    await a_volume(world, one["id"])
    status, message = await refusal(world, "POST", "/sandbox", {"volumes": mounted(one["id"])})
    assert (status, "is ambiguous" in message) == (400, True)


async def test_where_no_runner_can_mount_the_request_is_refused(world: World) -> None:
    await a_volume(world)
    table = {"volumes": {"enforcement": "refused", "detail": "nothing can be mounted without namespaces"}}
    await world.internal.heartbeat(RUNNER_ID, Heartbeat("unix:/nowhere", "scripted", table))
    assert await refusal(world, "POST", "/sandbox", {"volumes": mounted("shared")}) == (
        422,
        "Volumes cannot be mounted: nothing can be mounted without namespaces",
    )


async def test_a_host_folder_is_mounted_where_the_setting_allows_it_links_followed(tmp_path: Path) -> None:
    allowed, other = tmp_path / "allowed", tmp_path / "other"
    for folder in (allowed / "inner", other):
        folder.mkdir(parents=True)
    (allowed / "link").symlink_to(other)
    url, folders = f"sqlite:///{tmp_path / 'test.db'}", (HostFolder(str(allowed)),)
    async with open_world(url, bus=MemoryBus(), host_folders=folders) as world:
        await world.runner.beat()
        asked = mounted(f"host:{allowed}/inner")
        assert (await world.create(volumes=asked))["volumes"] == asked
        assert world.runner.jobs[0].spec.mounts == (Mount("/data", host_folder=f"{allowed}/inner"),)
        for path in (allowed / "link", other, f"{allowed}/../other", f"{allowed}-beside", "relative"):
            status, message = await refusal(world, "POST", "/sandbox", {"volumes": mounted(f"host:{path}")})
            assert (status, "SANDYARD_HOST_FOLDERS" in message) == (400, True), path


@pytest.mark.parametrize("permission", ["read:volumes", "write:volumes", "delete:volumes"])
async def test_a_key_needs_the_permission(world: World, permission: str) -> None:
    made = await world.client.call("POST", "/api-keys", {"name": "k", "permissions": [permission]})
    volume, key = await a_volume(world), made.json["value"]
    calls = {
        "read:volumes": await world.client.call("GET", "/volumes", key=key),
        "write:volumes": await world.client.call("POST", "/volumes", {"name": "w"}, key=key),
        "delete:volumes": await world.client.call("DELETE", f"/volumes/{volume['id']}", key=key),
    }
    assert {name: answer.status for name, answer in calls.items()} == {
        name: 200 if name == permission else 403 for name in calls
    }
