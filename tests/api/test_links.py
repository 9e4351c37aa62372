"""Linked sandboxes: who may be linked to whom, and what becomes of them with their owner."""

import asyncio
from typing import Any

import pytest

from sandyard_api.jobs.wire import Heartbeat
from tests.api.conftest import World
from tests.api.doubles import RUNNER_ID

LINKED: dict[str, Any] = {"autoDeleteInterval": 0}


async def ended(world: World, *sandboxes: dict[str, Any]) -> None:
    """Return when a runner has removed them all."""
    async with asyncio.timeout(60), world.runner.working():
        for sandbox in sandboxes:
            while await state_of(world, sandbox) not in ("destroyed", "gone"):  # noqa: ASYNC110  asked over HTTP
                await asyncio.sleep(0.02)


async def state_of(world: World, sandbox: dict[str, Any]) -> str:
    answer = await world.client.call("GET", f"/sandbox/{sandbox['id']}")
    return str(answer.json.get("state", answer.status)) if answer.status == 200 else "gone"


async def test_a_linked_sandbox_is_on_its_owners_runner_and_in_its_network(either_world: World) -> None:
    world = either_world
    owner = await world.create(name="the-owner")
    child = await world.create(linkedSandbox="the-owner", name="the-child", **LINKED)
    assert (child["linkedSandboxId"], child["runnerId"]) == (owner["id"], owner["runnerId"])
    assert "linkedSandboxId" not in owner
    listed = (await world.client.call("GET", "/sandbox")).json["items"]
    assert {item["id"] for item in listed} == {owner["id"], child["id"]}
    assert not any("linkedSandboxId" in item for item in listed)
    links = {job.spec.name: job.spec.link for job in world.runner.jobs}
    assert links == {"the-owner": None, "the-child": owner["id"]}
    async with world.runner.working():
        await world.client.call("POST", f"/sandbox/{owner['id']}/stop")
        assert await state_of(world, child) == "started"
        await world.client.call("POST", f"/sandbox/{owner['id']}/start")
    assert world.runner.jobs[-1].spec.link == owner["id"]


async def test_linked_sandboxes_go_with_their_owner(either_world: World) -> None:
    world = either_world
    owner, other = await world.create(), await world.create()
    children = [await world.create(linkedSandbox=owner["id"], **LINKED) for _ in range(2)]
    theirs = await world.create(linkedSandbox=other["id"], **LINKED)
    deleted = await world.client.call("DELETE", f"/sandbox/{owner['id']}")
    assert (deleted.status, deleted.json["id"]) == (200, owner["id"])
    await ended(world, owner, *children)
    assert await state_of(world, theirs) == "started"
    assert await state_of(world, other) == "started"
    told = (await world.client.call("GET", f"/_sandyard/sandboxes/{children[0]['id']}")).json
    assert f"deleted with {owner['name']}, which it was linked to" in str(told)


async def test_a_linked_sandbox_goes_alone(world: World) -> None:
    owner = await world.create()
    child = await world.create(linkedSandbox=owner["id"], **LINKED)
    await world.client.call("POST", f"/sandbox/{child['id']}/stop")  # ephemeral: that is its end
    await ended(world, child)
    assert await state_of(world, owner) == "started"


async def test_what_cannot_be_linked_is_refused(world: World) -> None:
    owner = await world.create(name="owner")
    child = await world.create(linkedSandbox="owner", name="child", **LINKED)
    gone = await world.create(name="gone")
    await world.client.call("DELETE", f"/sandbox/{gone['id']}")
    build = {"buildInfo": {"dockerfileContent": "FROM debian:12\n"}}
    creating = (await world.client.call("POST", "/sandbox", {"name": "creating", **build})).json
    ephemeral = "Linked sandboxes must be ephemeral - set autoDeleteInterval to 0"
    refused: list[tuple[dict[str, Any], int, str]] = [
        ({"linkedSandbox": owner["id"]}, 400, ephemeral),
        ({"linkedSandbox": owner["id"], "autoDeleteInterval": 5}, 400, ephemeral),
        (
            {"linkedSandbox": "owner", **build, **LINKED},
            400,
            "linkedSandbox is not supported with declarative builds. Create a sandbox from a snapshot",
        ),
        (
            {"linkedSandbox": child["id"], **LINKED},
            400,
            "Sandbox child is linked to another sandbox and cannot be linked to",
        ),
        (
            {"linkedSandbox": creating["id"], **LINKED},
            400,
            f"Sandbox creating must be started or stopped to be linked to; it is {creating['state']}",
        ),
        ({"linkedSandbox": 5, **LINKED}, 400, "linkedSandbox must be a string"),
    ]
    for body, status, message in refused:
        answer = await world.client.call("POST", "/sandbox", body)
        assert (answer.status, answer.json["message"]) == (status, message), body
    for nobody in ("nobody", gone["id"]):
        answer = await world.client.call("POST", "/sandbox", {"linkedSandbox": nobody, **LINKED})
        assert answer.status in (400, 404), answer.body
        assert "not found" in answer.json["message"] or "must be started or stopped" in answer.json["message"]


async def test_a_runtime_that_cannot_join_networks_refuses(world: World) -> None:
    owner = await world.create()
    table = {"links": {"enforcement": "refused", "detail": "networks cannot be joined"}}
    await world.internal.heartbeat(RUNNER_ID, Heartbeat("unix:/nowhere/runner.sock", "scripted", table))
    answer = await world.client.call("POST", "/sandbox", {"linkedSandbox": owner["id"], **LINKED})
    assert answer.status == 422
    assert answer.json["message"] == ("Linked sandboxes are not supported for this sandbox: networks cannot be joined")


GPU: list[tuple[dict[str, Any], str]] = [
    ({"gpu": 2}, "gpu must not be greater than 1"),
    (
        {"gpu": 1, "gpuType": ["TPU"]},
        "each value in gpuType must be one of the following values: H100, H200, RTX-PRO-6000, RTX-4090, RTX-5090",
    ),
    ({"gpuType": []}, "gpuType should not be empty"),
    ({"gpu": 1}, "Cannot specify Sandbox resources when using a snapshot"),
    (
        {"gpuType": "H100"},
        "Cannot specify GPU type when creating sandbox from snapshot. GPU type is inherited from snapshot.",
    ),
    (
        {"gpu": 1, "buildInfo": {"dockerfileContent": "FROM x"}},
        "GPU sandboxes must be ephemeral - set autoDeleteInterval to 0",
    ),
    (
        {"gpu": 1, "gpuType": ["H100", "H200"], "buildInfo": {"dockerfileContent": "FROM x"}, **LINKED},
        "No available runners for GPU type H100, H200: no runtime of Sandyard hands GPUs to sandboxes",
    ),
    (
        {"gpu": 1, "buildInfo": {"dockerfileContent": "FROM x"}, **LINKED},
        "No available runners for GPU type any: no runtime of Sandyard hands GPUs to sandboxes",
    ),
]


@pytest.mark.parametrize(("body", "message"), GPU)
async def test_a_gpu_is_refused_as_where_no_runner_has_one(world: World, body: dict[str, Any], message: str) -> None:
    answer = await world.client.call("POST", "/sandbox", body)
    assert (answer.status, answer.json["message"]) == (400, message)


async def test_no_gpu_is_no_gpu(world: World) -> None:
    assert (await world.create(gpu=0))["gpu"] == 0
