"""Preview URLs and signed previews, as clients see them, on both databases."""

from datetime import timedelta
from pathlib import Path

import pytest

from sandyard.clock import ManualClock
from sandyard_api.jobs.client import UnknownRoute
from tests.api.conftest import World, open_world


async def test_a_signed_preview_is_a_token_for_one_port_of_one_sandbox(either_world: World) -> None:
    world = either_world
    sandbox = await world.create(name="web")
    signed = await world.client.call("GET", "/sandbox/web/ports/3000/signed-preview-url?expiresInSeconds=90")
    assert (signed.status, signed.json["sandboxId"], signed.json["port"]) == (200, sandbox["id"], 3000)
    token = signed.json["token"]
    assert len(token) == 16
    assert f"//3000-{token}.localhost:" in signed.json["url"]
    route = await world.internal.route(token)
    assert (route.sandbox_id, route.signed_port) == (sandbox["id"], 3000)
    assert route.signed_until is not None
    assert (await world.internal.route(sandbox["id"])).signed_port is None
    found = await world.client.call("GET", f"/preview/{token}/3000/sandbox-id")
    assert (found.status, found.json) == (200, sandbox["id"])
    assert (await world.client.call("GET", f"/preview/{token}/3001/sandbox-id")).status == 403


async def test_a_signed_preview_ends_when_it_is_expired_and_expiring_it_again_changes_nothing(
    either_world: World,
) -> None:
    world = either_world
    await world.create(name="web")
    token = (await world.client.call("GET", "/sandbox/web/ports/80/signed-preview-url")).json["token"]
    other = (await world.client.call("GET", "/sandbox/web/ports/80/signed-preview-url")).json["token"]
    for _ in range(2):
        ended = await world.client.call("POST", f"/sandbox/web/ports/80/signed-preview-url/{token}/expire")
        assert (ended.status, ended.body) == (200, b"")
    with pytest.raises(UnknownRoute):
        await world.internal.route(token)
    assert (await world.internal.route(other)).signed_port == 80


async def test_a_signed_preview_ends_by_the_clock(tmp_path: Path) -> None:
    clock = ManualClock()
    async with open_world(f"sqlite:///{tmp_path / 'test.db'}", clock=clock) as world:
        await world.runner.beat()
        await world.create(name="web")
        token = (await world.client.call("GET", "/sandbox/web/ports/80/signed-preview-url")).json["token"]
        route = await world.internal.route(token)
        assert route.signed_until == clock.now() + timedelta(seconds=60)
        await clock.advance(61)
        with pytest.raises(UnknownRoute):
            await world.internal.route(token)


@pytest.mark.parametrize("seconds", ["0", "-1", "86401", "1e99", "soon"])
async def test_a_life_out_of_range_is_refused(world: World, seconds: str) -> None:
    await world.create(name="web")
    answer = await world.client.call("GET", f"/sandbox/web/ports/80/signed-preview-url?expiresInSeconds={seconds}")
    assert answer.status == 400
    assert "expiresInSeconds" in answer.json["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/sandbox/nobody/ports/80/signed-preview-url"),
        ("POST", "/sandbox/nobody/ports/80/signed-preview-url/x/expire"),
        ("GET", "/preview/nobody/public"),
        ("GET", "/preview/nobody/access"),
        ("GET", "/preview/nobody/validate/x"),
        ("GET", "/preview/nobody/preview-warning"),
    ],
)
async def test_nobody_has_no_previews(world: World, method: str, path: str) -> None:
    assert (await world.client.call(method, path)).status == 404
    assert (await world.client.call(method, path, key=None)).status == 401


async def test_a_separate_proxy_may_ask_who_may_see_a_sandbox(world: World) -> None:
    sandbox = await world.create(name="web")
    token = (await world.client.call("GET", "/sandbox/web/ports/80/preview-url")).json["token"]
    assert (await world.client.call("GET", "/preview/web/public")).json is False
    await world.client.call("POST", "/sandbox/web/public/true")
    for path, expected in {
        "/preview/web/public": True,
        f"/preview/{sandbox['id']}/access": True,
        f"/preview/web/validate/{token}": True,
        "/preview/web/validate/wrong": False,
        "/preview/web/preview-warning": {"enabled": False},
    }.items():
        answer = await world.client.call("GET", path)
        assert (answer.status, answer.json) == (200, expected), path


async def test_a_client_without_host_names_asks_for_a_path(world: World) -> None:
    sandbox = await world.create(name="web")
    path = (await world.client.call("GET", "/sandbox/web/ports/3000/preview-url?form=path")).json["url"]
    assert path == f"{world.client.url}/preview/{sandbox['id']}/3000/"
    signed = (await world.client.call("GET", "/sandbox/web/ports/3000/signed-preview-url?form=path")).json
    assert signed["url"] == f"{world.client.url}/preview/{signed['token']}/3000/"
    wrong = await world.client.call("GET", "/sandbox/web/ports/3000/preview-url?form=cube")
    assert (wrong.status, wrong.json["message"]) == (400, "form must be one of: host, path")
