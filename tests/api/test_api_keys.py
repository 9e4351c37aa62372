"""API keys: made, shown once, limited, expired and revoked, on both databases."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sandyard.clock import ManualClock
from sandyard_api.jobs.wire import CHANNEL_KEYS
from tests.api.conftest import World, open_world


async def make(world: World, **body: Any) -> Any:
    """A new key's answer."""
    return await world.client.call("POST", "/api-keys", {"name": "ci", "permissions": ["write:sandboxes"], **body})


async def test_a_key_is_shown_once_and_works_until_it_is_revoked(either_world: World) -> None:
    world = either_world
    made = await make(world)
    assert made.status == 201
    key = made.json["value"]
    assert set(made.json) == {"name", "value", "createdAt", "permissions", "expiresAt"}
    listed = (await world.client.call("GET", "/api-keys")).json
    assert [item["name"] for item in listed] == ["ci", "owner"]
    assert key not in str(listed)
    mine = await world.client.call("GET", "/api-keys/current", key=key)
    assert (mine.json["name"], mine.json["permissions"]) == ("ci", ["write:sandboxes"])
    assert (await world.client.call("GET", "/api-keys/ci")).json["value"].endswith(key[-3:])
    async with world.bus.subscribe(CHANNEL_KEYS) as hints:
        assert (await world.client.call("DELETE", "/api-keys/ci")).status == 204
        assert await hints.next() is not None
    assert (await world.client.call("GET", "/api-keys/current", key=key)).status == 401
    assert (await world.client.call("DELETE", "/api-keys/ci")).status == 404


async def test_a_key_may_do_what_it_was_made_for_and_hand_on_no_more(either_world: World) -> None:
    world = either_world
    key = (await make(world, permissions=["manage:api_keys"])).json["value"]
    refused = await world.client.call("POST", "/sandbox", {}, key=key)
    assert (refused.status, refused.json["message"]) == (403, "Access denied")
    more = await world.client.call("POST", "/api-keys", {"name": "b", "permissions": ["write:sandboxes"]}, key=key)
    assert more.status == 403
    assert more.json["message"] == "Insufficient permissions for assigning: write:sandboxes"
    user = (await world.client.call("GET", "/users/me")).json["id"]
    assert (await world.client.call("DELETE", f"/api-keys/{user}/ci", key=key)).status == 204
    assert (await world.client.call("DELETE", "/api-keys/somebody/ci")).status == 404


async def test_a_key_ends_by_the_clock(tmp_path: Path) -> None:
    clock = ManualClock()
    async with open_world(f"sqlite:///{tmp_path / 'test.db'}", clock=clock) as world:
        expires = clock.now() + timedelta(hours=1)
        key = (await make(world, expiresAt=expires.isoformat())).json["value"]
        assert (await world.client.call("GET", "/api-keys/current", key=key)).status == 200
        await clock.advance(3601)
        assert (await world.client.call("GET", "/api-keys/current", key=key)).status == 401


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"name": ""}, 400),
        ({"name": "<b>"}, 400),
        ({"name": 5}, 400),
        ({"permissions": None}, 400),
        ({"permissions": ["everything"]}, 400),
        ({"permissions": [["x"]]}, 400),
        ({"permissions": "write:sandboxes"}, 400),
        ({"expiresAt": "soon"}, 400),
        ({"expiresAt": "2001-01-01T00:00:00Z"}, 400),
        ({"name": "owner"}, 409),
    ],
)
async def test_a_key_that_cannot_be_is_refused(world: World, body: dict[str, Any], status: int) -> None:
    answer = await make(world, **body)
    assert (answer.status, answer.json["statusCode"]) == (status, status)


async def test_the_owners_key_is_the_installations(world: World) -> None:
    answer = await world.client.call("DELETE", "/api-keys/owner")
    assert answer.status == 400
    assert "SANDYARD_API_KEY" in answer.json["message"]
