"""Asking for lifecycle operations, and what came of them."""

from typing import Any

from tests.api.conftest import Answer, World


async def ask(world: World, sandbox: dict[str, Any], verb: str, body: Any = None) -> Answer:
    return await world.client.call("POST", f"/sandbox/{sandbox['id']}/{verb}", body)


async def state(world: World, sandbox: dict[str, Any]) -> str:
    read = await world.client.call("GET", f"/sandbox/{sandbox['id']}")
    return str(read.json["state"])


async def last_cause(world: World, sandbox: dict[str, Any]) -> str:
    read = await world.client.call("GET", f"/_sandyard/sandboxes/{sandbox['id']}")
    return str(read.json["history"][-1]["cause"])


async def stopped(world: World, **body: Any) -> dict[str, Any]:
    sandbox = await world.create(**body)
    async with world.runner.working():
        assert (await ask(world, sandbox, "stop")).json["state"] == "stopped"
    return sandbox


async def archived(world: World) -> dict[str, Any]:
    sandbox = await stopped(world)
    await ask(world, sandbox, "archive")
    await world.runner.work_once()
    assert await state(world, sandbox) == "archived"
    return sandbox


def told(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json["message"]
