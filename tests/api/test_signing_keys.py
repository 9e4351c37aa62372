"""The key that signs file URLs: made once, sealed, changed by its route, plain text that no client takes for JSON."""

import asyncio
import json

import pytest
from sqlalchemy import select

from sandyard_api.jobs.wire import CHANNEL_ROUTES
from sandyard_api.sandboxes.models import Sandbox
from tests.api.conftest import World


async def test_the_key_is_the_same_at_every_read_and_another_after_a_rotation(either_world: World) -> None:
    world = either_world
    sandbox = (await world.create(name="web"))["id"]
    assert (await world.internal.route(sandbox)).signing_key == ""
    route = f"/sandbox/{sandbox}/signing-key"
    at_once = await asyncio.gather(*(world.client.call("GET", route) for _ in range(5)))
    [first] = {answer.body for answer in at_once}
    assert (await world.internal.route(sandbox)).signing_key == first.decode()
    async with world.bus.subscribe(CHANNEL_ROUTES) as hints:
        rotated = await world.client.call("POST", "/sandbox/web/signing-key/rotate")
        hint = await hints.next()
    assert (rotated.status, hint is not None and hint.payload.decode()) == (200, sandbox)
    assert rotated.body not in (b"", first)
    assert (await world.client.call("GET", route)).body == rotated.body
    assert (await world.internal.route(sandbox)).signing_key == rotated.body.decode()


async def test_the_key_survives_restarts_and_is_sealed_at_rest(world: World) -> None:
    sandbox = (await world.create())["id"]
    before = (await world.client.call("GET", f"/sandbox/{sandbox}/signing-key")).body
    async with world.runner.working():
        await world.client.call("POST", f"/sandbox/{sandbox}/stop")
        await world.client.call("POST", f"/sandbox/{sandbox}/start")
    assert (await world.client.call("GET", f"/sandbox/{sandbox}/signing-key")).body == before
    async with world.plane.database.reading() as db:
        stored = await db.scalar(select(Sandbox.signing_key_sealed).where(Sandbox.id == sandbox))
    assert stored is not None
    assert before.decode() not in stored


async def test_the_key_is_plain_text_that_no_json_parser_takes(world: World) -> None:
    sandbox = (await world.create())["id"]
    for method, path in (("GET", "signing-key"), ("POST", "signing-key/rotate")):
        answer = await world.client.call(method, f"/sandbox/{sandbox}/{path}")
        assert answer.status == 200
        assert answer.headers["content-type"].startswith("text/plain")
        assert answer.body.startswith(b"sk_")
        with pytest.raises(ValueError, match="Expecting value"):
            json.loads(answer.body)


async def test_the_key_of_what_is_not_there_or_without_an_api_key(world: World) -> None:
    sandbox = (await world.create())["id"]
    for method, path in (("GET", "signing-key"), ("POST", "signing-key/rotate")):
        assert (await world.client.call(method, f"/sandbox/nowhere/{path}")).status == 404
        assert (await world.client.call(method, f"/sandbox/{sandbox}/{path}", key=None)).status == 401
        assert (await world.client.call(method, f"/sandbox/{sandbox}/{path}", key="wrong")).status == 401
