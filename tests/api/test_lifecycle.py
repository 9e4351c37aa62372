"""A sandbox from its creation to its end, as clients see it."""

from tests.api.conftest import World


async def test_create_waits_for_the_runner_and_answers_started(world: World) -> None:
    sandbox = await world.create(name="first", labels={"a": "b"}, env={"X": "1"})
    assert sandbox["state"] == "started"
    assert sandbox["name"] == "first"
    assert sandbox["toolboxProxyUrl"] == f"{world.client.url}/toolbox"
    assert sandbox["daemonVersion"] == "test"
    read = await world.client.call("GET", "/sandbox/first")
    assert (read.status, read.json["id"]) == (200, sandbox["id"])


async def test_stop_and_start_again(world: World) -> None:
    sandbox = await world.create()
    first = await world.client.call("GET", f"/sandbox/{sandbox['id']}/ports/3000/preview-url")
    async with world.runner.working():
        stopped = await world.client.call("POST", f"/sandbox/{sandbox['id']}/stop")
        started = await world.client.call("POST", f"/sandbox/{sandbox['id']}/start")
    assert (stopped.status, stopped.json["state"]) == (200, "stopped")
    assert (started.status, started.json["state"]) == (200, "started")
    second = await world.client.call("GET", f"/sandbox/{sandbox['id']}/ports/3000/preview-url")
    assert first.json["token"] != second.json["token"]
