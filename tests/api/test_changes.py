"""What can be changed of a sandbox beside its state, and what is read of it."""

from tests.api.conftest import World


async def test_labels_are_replaced_as_a_whole_and_can_be_filtered_at_once(either_world: World) -> None:
    world = either_world
    sandbox = await world.create(labels={"a": "1", "b": "2"})
    path = f"/sandbox/{sandbox['id']}"
    replaced = await world.client.call("PUT", f"{path}/labels", {"labels": {"c": "3"}})
    assert (replaced.status, replaced.json) == (200, {"labels": {"c": "3"}})
    found = await world.client.call("GET", '/sandbox?labels={"c":"3"}')
    assert [item["id"] for item in found.json["items"]] == [sandbox["id"]]
    gone = await world.client.call("GET", '/sandbox?labels={"a":"1"}')
    assert gone.json["items"] == []


SETTINGS: list[tuple[str, str, object]] = [
    ("autostop/0", "autoStopInterval", 0),
    ("autostop/7", "autoStopInterval", 7),
    ("autoarchive/0", "autoArchiveInterval", 43200),
    ("autoarchive/99999999", "autoArchiveInterval", 43200),
    ("autodelete/-1", "autoDeleteInterval", -1),
    ("autodelete/0", "autoDeleteInterval", 0),
    ("public/true", "public", True),
]


async def test_settings_come_back_in_the_next_read(world: World) -> None:
    sandbox = await world.create()
    for path, field, value in SETTINGS:
        changed = await world.client.call("POST", f"/sandbox/{sandbox['id']}/{path}")
        assert (changed.status, changed.json[field]) == (200, value)
        read = await world.client.call("GET", f"/sandbox/{sandbox['id']}")
        assert read.json[field] == value


REFUSED: list[tuple[str, str]] = [
    ("autostop/-1", "Auto-stop interval must be non-negative"),
    ("autoarchive/-1", "Auto-archive interval must be non-negative"),
    ("autostop/soon", "Validation failed (numeric string is expected)"),
    ("autostop/99999999999999999999", "an interval must not be greater than 2147483647"),
    ("public/maybe", "Validation failed (boolean string is expected)"),
]


async def test_settings_that_cannot_be_are_refused(world: World) -> None:
    sandbox = await world.create()
    for path, message in REFUSED:
        changed = await world.client.call("POST", f"/sandbox/{sandbox['id']}/{path}")
        assert (changed.status, changed.json["message"]) == (400, message)


async def test_a_time_to_live_is_counted_from_now_and_zero_takes_it_back(world: World) -> None:
    sandbox = await world.create()
    path = f"/sandbox/{sandbox['id']}/ttl"
    assert "autoDestroyAt" in (await world.client.call("POST", f"{path}/10")).json
    assert "autoDestroyAt" not in (await world.client.call("POST", f"{path}/0")).json


async def test_last_activity_answers_201_with_nothing(world: World) -> None:
    sandbox = await world.create()
    answer = await world.client.call("POST", f"/sandbox/{sandbox['id']}/last-activity", {})
    assert (answer.status, answer.body) == (201, b"")
    assert "content-type" not in answer.headers
    read = await world.client.call("GET", f"/sandbox/{sandbox['id']}")
    assert read.json["lastActivityAt"] > sandbox["lastActivityAt"]


async def test_previews_have_their_own_host_but_the_daemons_port_is_the_plain_origin(world: World) -> None:
    sandbox = await world.create()
    port = world.client.url.rpartition(":")[2]
    web = await world.client.call("GET", f"/sandbox/{sandbox['id']}/ports/3000/preview-url")
    assert web.json["url"] == f"http://3000-{sandbox['id']}.localhost:{port}"
    assert web.json["sandboxId"] == sandbox["id"]
    daemon = await world.client.call("GET", f"/sandbox/{sandbox['id']}/ports/2280/preview-url")
    assert daemon.json["url"] == world.client.url


async def test_ports_that_cannot_be_are_refused(world: World) -> None:
    sandbox = await world.create()
    for port in ("0", "65536", "x", "-1", "99999999999999999999"):
        answer = await world.client.call("GET", f"/sandbox/{sandbox['id']}/ports/{port}/preview-url")
        assert (answer.status, answer.json["message"]) == (400, "Invalid port")


async def test_the_build_log_has_a_line_at_once_and_ends_with_the_build(world: World) -> None:
    made = await world.client.call("POST", "/sandbox", {"buildInfo": {"dockerfileContent": "FROM debian:12"}})
    sandbox_id = made.json["id"]
    url = (await world.client.call("GET", f"/sandbox/{sandbox_id}/build-logs-url")).json["url"]
    assert url == f"{world.client.url}/api/sandbox/{sandbox_id}/build-logs"
    headers = {"Authorization": "Bearer sy_test-key-of-the-owner"}
    async with world.client.session.get(f"{url}?follow=true", headers=headers) as stream:
        first = await stream.content.readany()
        await world.internal.append_build_log(sandbox_id, "Pulling\n")
        second = await stream.content.readany()
        await world.runner.work_once()
        rest = await stream.content.read()
    assert (first, second, rest) == (b"Preparing image debian:12\n", b"Pulling\n", b"")
    whole = await world.client.call("GET", f"/sandbox/{sandbox_id}/build-logs")
    assert whole.body == b"Preparing image debian:12\nPulling\n"
