"""Linked sandboxes on a real engine: they reach each other and nothing else, and their network goes with its owner."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from sandyard_api.jobs.wire import SandboxSpec
from sandyard_runner.runtime.docker import DockerOptions, open_docker_runtime, remove_everything
from sandyard_runner.runtime.docker.options import LABEL_INSTALLATION, LABEL_LINK
from sandyard_runner.runtime.docker.runtime import DockerRuntime
from tests.docker.conftest import BUSYBOX, DEBIAN, execute, need_image, spec, started

pytestmark = pytest.mark.docker
SERVE = """setsid perl -MIO::Socket::INET -e '
my $listener = IO::Socket::INET->new(LocalPort => 8000, Listen => 5, ReuseAddr => 1) or die;
while (my $client = $listener->accept) { print $client "hello\\n"; close $client }' >/dev/null 2>&1 </dev/null &
until (exec 3<>/dev/tcp/127.0.0.1/8000) 2>/dev/null; do sleep 0.1; done"""


@pytest.fixture(autouse=True)
def _image(engine: Any) -> None:
    for image in (BUSYBOX, DEBIAN):
        need_image(engine, image)


def link_networks(engine: Any, options: DockerOptions) -> Sequence[dict[str, Any]]:
    filters = {"label": [f"{LABEL_INSTALLATION}={options.installation}", LABEL_LINK]}
    found: list[dict[str, Any]] = engine.networks(filters=filters)
    return found


async def linked(runtime: DockerRuntime, owner: SandboxSpec, **fields: Any) -> SandboxSpec:
    child = spec(link=owner.sandbox_id, **fields)
    await runtime.create(child)
    await runtime.start(child)
    return child


async def test_linked_sandboxes_find_each_other_and_go_with_their_owner(
    runtime: DockerRuntime, engine: Any, options: DockerOptions
) -> None:
    owner, stranger = spec(image=DEBIAN), await started(runtime, image=DEBIAN)
    await runtime.create(owner)
    await runtime.start(owner)
    child = await linked(runtime, owner, image=DEBIAN)
    sibling = await linked(runtime, owner, image=DEBIAN, network_block_all=True)
    for each in (owner, child):
        assert (await execute(runtime, each, SERVE))[0] == 0
    get = "timeout 5 bash -c 'cat </dev/tcp/{}/8000'"
    get_patiently = get.replace("5", "30", 1)  # for what must be reached: a busy machine takes its time
    for who, whom in ((child, owner), (owner, child), (sibling, owner), (sibling, child)):
        assert await execute(runtime, who, get_patiently.format(whom.sandbox_id + ".link")) == (0, "hello\n"), (
            who,
            whom,
        )
    assert (await execute(runtime, child, get.format(sibling.sandbox_id + ".link")))[0] != 0  # nothing listens there
    assert (await execute(runtime, stranger, get.format(owner.sandbox_id + ".link")))[0] != 0
    [network] = await asyncio.to_thread(link_networks, engine, options)
    told = await asyncio.to_thread(engine.inspect_network, network["Id"])
    address = next(
        item["IPv4Address"].partition("/")[0]
        for item in told["Containers"].values()
        if item["Name"] == options.container(owner.sandbox_id)
    )
    assert (await execute(runtime, stranger, get.format(address)))[0] != 0
    await runtime.stop(owner.sandbox_id)
    await runtime.start(replace(owner, link=owner.sandbox_id))
    assert (await execute(runtime, owner, get_patiently.format(child.sandbox_id + ".link")))[1] == "hello\n"
    await runtime.remove(owner.sandbox_id)
    assert len(await asyncio.to_thread(link_networks, engine, options)) == 1
    for each in (child, sibling):
        await runtime.remove(each.sandbox_id)
    assert await asyncio.to_thread(link_networks, engine, options) == []


async def test_the_network_leads_to_nothing_of_the_machine(
    runtime: DockerRuntime, engine: Any, options: DockerOptions
) -> None:
    owner = await started(runtime)
    child = await linked(runtime, owner, network_block_all=True)
    [network] = await asyncio.to_thread(link_networks, engine, options)
    assert network["Internal"]
    main = await asyncio.to_thread(engine.inspect_network, options.network)
    gateways = [
        item["IPAM"]["Config"][0]["Gateway"] for item in (main, network) if "Gateway" in item["IPAM"]["Config"][0]
    ]
    _, routes = await execute(runtime, child, "ip route")
    gateways += [line.split()[2] for line in routes.splitlines() if line.startswith("default ")]
    for address in gateways:
        assert (await execute(runtime, child, f"ping -c 1 -W 1 {address}"))[0] != 0, address
    # Being linked takes nobody's way out.
    _, routes = await execute(runtime, owner, "ip route")
    assert f"default via {main['IPAM']['Config'][0]['Gateway']} " in routes


async def test_networks_of_linked_sandboxes_are_known_again_and_removed_with_everything(
    engine: Any, options: DockerOptions
) -> None:
    async with open_docker_runtime(options) as first:
        owner = await started(first)
        child = await linked(first, owner)
    async with open_docker_runtime(options) as second:
        for each in (owner, child):
            await second.remove(each.sandbox_id)
        assert await asyncio.to_thread(link_networks, engine, options) == []
        owner = await started(second)
        await linked(second, owner)
    lines = await remove_everything(options)
    assert f"removed network sandyard-link-{owner.sandbox_id}" in lines
    assert await asyncio.to_thread(link_networks, engine, options) == []
