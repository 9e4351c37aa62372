"""Logins at registries: kept sealed, never shown, handed to runners with the images."""

from typing import Any

import daytona_api_client as client
import pytest
from sqlalchemy import select

from sandyard_api.registries.models import Registry
from sandyard_api.registries.requests import normal_url
from tests.api.conftest import World
from tests.api.test_coverage import check_schema, description

__all__ = ["description"]

LOGIN = {"name": "ours", "url": "https://GHCR.io/team/", "username": "robot", "password": "let-me-in", "project": "p"}


async def test_a_login_is_kept_sealed_changed_and_forgotten(either_world: World, description: dict[str, Any]) -> None:
    made = await either_world.client.call("POST", "/docker-registry", LOGIN)
    assert made.status == 201
    assert (made.json["url"], made.json["registryType"]) == ("ghcr.io/team", "organization")
    assert "let-me-in" not in made.body.decode()
    check_schema(description, "DockerRegistry", made.json)
    assert client.DockerRegistry.from_dict(made.json) is not None
    path = f"/docker-registry/{made.json['id']}"
    async with either_world.plane.database.reading() as db:
        row = await db.scalar(select(Registry))
    assert row is not None
    assert "let-me-in" not in row.password_sealed
    changed = await either_world.client.call("PATCH", path, {"name": "new", "url": "ghcr.io/team", "username": "bot"})
    assert (changed.status, changed.json["name"], changed.json["project"]) == (200, "new", "p")
    await either_world.client.call("POST", "/snapshots", {"name": "s", "imageName": "ghcr.io/team/app:1"})
    await either_world.runner.work_once()
    [login] = either_world.runner.image_jobs[0].source.logins
    assert (login.url, login.username, login.password) == ("ghcr.io/team", "bot", "let-me-in")
    assert "let-me-in" not in repr(login)
    listed = await either_world.client.call("GET", "/docker-registry")
    assert listed.json == [changed.json]
    assert (await either_world.client.call("GET", path)).json == changed.json
    gone = await either_world.client.call("DELETE", path)
    assert (gone.status, gone.body) == (204, b"")
    assert (await either_world.client.call("GET", path)).status == 404


async def test_what_cannot_be_is_refused(world: World) -> None:
    for change, message in (
        ({"name": None}, "name should not be empty"),
        ({"url": ""}, "url should not be empty"),
        ({"password": None, "username": None}, "username should not be empty, password should not be empty"),
        ({"url": "not a host"}, "url must be the address of a registry, not 'not a host'"),
        ({"url": 5}, "url must be a string"),
        ({"name": "<b>x</b>"}, "name must not contain HTML tags, URLs, or control characters"),
    ):
        answer = await world.client.call("POST", "/docker-registry", LOGIN | change)
        assert (answer.status, answer.json["message"]) == (400, message), change
    for method, path in (("GET", "/docker-registry/x"), ("DELETE", "/docker-registry/x")):
        assert (await world.client.call(method, path)).status == 404
    body = {"name": "n", "url": "ghcr.io", "username": "u"}
    assert (await world.client.call("PATCH", "/docker-registry/x", body)).status == 404


async def test_there_may_be_a_hundred(world: World) -> None:
    for _ in range(100):
        assert (await world.client.call("POST", "/docker-registry", LOGIN)).status == 201
    full = await world.client.call("POST", "/docker-registry", LOGIN)
    assert (full.status, full.json["message"]) == (400, "You have reached the maximum number of registries")


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("https://index.docker.io/v1/", "docker.io"),
        ("registry.hub.docker.com", "docker.io"),
        ("docker.io/team", "docker.io/team"),
        ("http://localhost:5000", "localhost:5000"),
        ("Registry.Example.com/A/b/", "registry.example.com/A/b"),
    ],
)
def test_a_registry_has_one_form(url: str, normal: str) -> None:
    assert normal_url(url) == normal
