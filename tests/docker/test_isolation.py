"""What a container sandbox can reach: tried from inside."""

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sandyard_runner.runtime.docker import DockerOptions
from sandyard_runner.runtime.docker.runtime import DockerRuntime
from sandyard_runner.wire import Enforcement
from tests.docker.conftest import BUSYBOX, execute, need_image, started, within

EVERYWHERE = "0.0.0.0"  # noqa: S104  so that sandboxes could reach it, if nothing kept them

pytestmark = pytest.mark.docker


@pytest.fixture(autouse=True)
def images(engine: Any) -> None:
    need_image(engine, BUSYBOX)


@asynccontextmanager
async def listening() -> AsyncIterator[int]:
    """A server of this machine that says `hello`; its port."""

    async def hello(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\n")
        writer.close()

    server = await asyncio.start_server(hello, EVERYWHERE, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def gateway(engine: Any, options: DockerOptions) -> str:
    return str(engine.inspect_network(options.network)["IPAM"]["Config"][0]["Gateway"])


def own_address() -> str:
    """This machine's address towards the world."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("198.51.100.1", 9))
        return str(probe.getsockname()[0])


def need_rules(runtime: DockerRuntime) -> None:
    row = next(row for row in runtime.capabilities() if row.name == "network_isolation")
    if row.enforcement is not Enforcement.ENFORCED:
        pytest.skip(row.detail)


async def test_this_machines_addresses_are_out_of_reach(
    runtime: DockerRuntime, engine: Any, options: DockerOptions
) -> None:
    need_rules(runtime)
    sandbox = await started(runtime)
    async with listening() as port:
        for address in (gateway(engine, options), own_address()):
            code, said = await execute(runtime, sandbox, f"nc -w 2 {address} {port} </dev/null")
            assert (code != 0, said.count("hello")) == (True, 0), address


async def test_without_the_rules_the_same_try_succeeds(
    runtime: DockerRuntime, engine: Any, options: DockerOptions
) -> None:
    """So that the test above can fail: this machine's own firewall is not what keeps sandboxes out."""
    need_rules(runtime)
    sandbox = await started(runtime)
    await runtime._rules.remove()
    async with listening() as port:
        _, said = await execute(runtime, sandbox, f"nc -w 30 {gateway(engine, options)} {port} </dev/null")
    assert said == "hello\n"


async def test_metadata_addresses_are_out_of_reach(runtime: DockerRuntime) -> None:
    need_rules(runtime)
    sandbox = await started(runtime)
    for address in ("169.254.169.254", "100.100.100.200"):
        assert (await execute(runtime, sandbox, f"nc -w 2 {address} 80 </dev/null"))[0] != 0


async def test_another_sandbox_is_out_of_reach(runtime: DockerRuntime, engine: Any) -> None:
    first, second = await started(runtime), await started(runtime)
    await execute(runtime, first, "echo hello >/tmp/page; httpd -p 8000 -h /tmp")
    ask = "printf 'GET /page HTTP/1.0\\r\\n\\r\\n' | nc -w {} {} 8000"
    assert "hello" in (await execute(runtime, first, ask.format(30, "127.0.0.1")))[1]
    found = engine.inspect_container(f"sandyard-{first.sandbox_id}")["NetworkSettings"]["Networks"]
    [address] = [network["IPAddress"] for network in found.values()]
    assert "hello" not in (await execute(runtime, second, ask.format(2, address)))[1]


async def test_a_service_in_another_container_is_out_of_reach(runtime: DockerRuntime, engine: Any) -> None:
    """As Postgres and Redis of the stack are: by its address, and by a port published on this machine."""
    need_rules(runtime)
    made = await asyncio.to_thread(_serve, engine)
    try:
        network = engine.inspect_container(made)["NetworkSettings"]
        port = network["Ports"]["8000/tcp"][0]["HostPort"]
        await within(60, asyncio.to_thread(_await_connection, network["IPAddress"], 8000))
        sandbox = await started(runtime)
        for target in (f"{network['IPAddress']} 8000", f"{network['Gateway']} {port}", f"{own_address()} {port}"):
            assert (await execute(runtime, sandbox, f"nc -w 2 {target} </dev/null"))[0] != 0, target
    finally:
        engine.remove_container(made, force=True)


@contextlib.contextmanager
def letting_through(bridge: str) -> Iterator[None]:
    """The engine's own rules say nothing about what comes from this bridge or goes to it."""
    rules = [["DOCKER-USER", way, bridge, "-j", "ACCEPT"] for way in ("-i", "-o")]
    with contextlib.ExitStack() as stack:
        for rule in rules:
            subprocess.run(["iptables", "-w", "-I", *rule], check=True, timeout=10)
            stack.callback(subprocess.run, ["iptables", "-w", "-D", *rule], check=True, timeout=10)
        yield


@pytest.mark.skipif(shutil.which("iptables") is None, reason="iptables is not installed")
async def test_it_is_so_while_the_engine_lets_everything_through(
    runtime: DockerRuntime, engine: Any, options: DockerOptions
) -> None:
    """Engines of some releases take their own rules away for a moment when they make a network."""
    need_rules(runtime)
    if os.geteuid() != 0:
        pytest.skip("needs to be root")
    made = await asyncio.to_thread(_serve, engine)
    try:
        address = engine.inspect_container(made)["NetworkSettings"]["IPAddress"]
        await within(60, asyncio.to_thread(_await_connection, address, 8000))
        sandbox = await started(runtime)
        with letting_through(options.bridge):
            assert (await execute(runtime, sandbox, f"nc -w 2 {address} 8000 </dev/null"))[0] != 0
            await runtime._rules.remove()
            assert (await execute(runtime, sandbox, f"nc -w 30 {address} 8000 </dev/null"))[0] == 0  # so it can fail
    finally:
        engine.remove_container(made, force=True)


def _serve(engine: Any) -> str:
    """A container beside the sandboxes, with its port published to the world; its id."""
    made: str = engine.create_container(
        BUSYBOX,
        ["httpd", "-f", "-p", "8000"],
        ports=[8000],
        host_config=engine.create_host_config(port_bindings={8000: (EVERYWHERE, None)}),
    )["Id"]
    engine.start(made)
    return made


def _await_connection(address: str, port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError), socket.create_connection((address, port), 5):
            return
        assert time.monotonic() < deadline, f"nobody listens at {address}:{port}"
        time.sleep(0.05)  # nobody tells when it listens


async def test_the_door_of_another_sandbox_is_not_to_be_seen(runtime: DockerRuntime) -> None:
    first, second = await started(runtime), await started(runtime)
    _, found = await execute(runtime, second, "find / -name '*.sock' 2>/dev/null; cat /proc/mounts")
    assert first.sandbox_id not in found
    assert found.count("door.sock") == 1


async def test_a_sandbox_without_a_network_can_be_driven(runtime: DockerRuntime) -> None:
    sandbox = await started(runtime, network_block_all=True)
    code, found = await execute(runtime, sandbox, "ls /sys/class/net")
    assert (code, found.split()) == (0, ["lo"])


async def test_the_bundle_cannot_be_changed_from_inside(runtime: DockerRuntime) -> None:
    sandbox = await started(runtime)
    assert "Read-only" in (await execute(runtime, sandbox, "touch /opt/sandyard/x 2>&1"))[1]
