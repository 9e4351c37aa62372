"""Allow lists, name lookups and secrets of container sandboxes, tried from inside against hosts of the test's own."""

import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from sandyard_api.jobs.wire import SandboxSpec, SecretGrant
from sandyard_runner.runtime.docker import DockerOptions, open_docker_runtime, remove_everything
from sandyard_runner.runtime.docker.network import table_name
from sandyard_runner.runtime.docker.runtime import DockerRuntime
from tests.docker.conftest import DEBIAN, execute, need_image
from tests.docker.conftest import started as started_from
from tests.docker.test_isolation import need_rules
from tests.hosts import NETWORK, Host, Network, open_network

pytestmark = [pytest.mark.docker, pytest.mark.root]


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    if shutil.which("nft") is None:
        pytest.skip("nft is not installed")
    with open_network() as opened:
        yield opened


@pytest.fixture(scope="module")
def site(network: Network) -> Host:
    """A web server, and the name server that knows it."""
    host = network.host(10)
    host.start("http", "80")
    return host


@pytest.fixture(scope="module")
def other(network: Network) -> Host:
    host = network.host(11)
    host.start("http", "80")
    return host


@pytest.fixture(scope="module")
def names(network: Network, site: Host, other: Host) -> Host:
    host = network.host(53)
    host.start(
        "dns", f"www.example.com={site.address}", f"other.example.org={other.address}", "host.example.com=10.9.9.9"
    )
    return host


@pytest.fixture
def options(options: DockerOptions, names: Host) -> DockerOptions:
    return replace(options, name_servers=(names.address,))


@pytest.fixture
async def runtime(engine: Any, options: DockerOptions) -> AsyncIterator[DockerRuntime]:
    need_image(engine, DEBIAN)
    async with open_docker_runtime(options) as opened:
        need_rules(opened)
        yield opened
    await remove_everything(options)
    assert table_name(options) not in tables()


def tables() -> str:
    return subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout


async def started(runtime: DockerRuntime, **fields: Any) -> SandboxSpec:
    return await started_from(runtime, image=DEBIAN, **fields)


SHORT_SECONDS, PATIENT_SECONDS = 5, 30
"""For what must be reached the second: on a busy machine that takes its time."""


def asking(target: str, *, through: str = "", header: str = "X: y", seconds: int = SHORT_SECONDS) -> str:
    """A shell command that prints the answer of a web server, asked through a proxy where one is given."""
    host, _, port = (through.removeprefix("http://") or target).partition(":")
    line = f"GET {f'http://{target}' if through else ''}/ HTTP/1.0"
    return (
        f"timeout {seconds} bash -c 'exec 3<>/dev/tcp/{host}/{port or 80} && "
        f'printf "{line}\\r\\nHost: {target}\\r\\n{header}\\r\\n\\r\\n" >&3 && cat <&3\' 2>&1'
    )


async def reaches(runtime: DockerRuntime, sandbox: SandboxSpec, target: str, **how: Any) -> bool:
    """Whether a request from inside is answered."""
    _, said = await execute(runtime, sandbox, asking(target, **how))
    return "200 OK" in said


async def test_without_rules_the_hosts_of_the_test_can_be_reached(
    runtime: DockerRuntime, site: Host, other: Host
) -> None:
    """So that the tests below can fail."""
    sandbox = await started(runtime)
    assert await reaches(runtime, sandbox, site.address, seconds=PATIENT_SECONDS)
    assert await reaches(runtime, sandbox, other.address, seconds=PATIENT_SECONDS)


async def test_only_networks_of_the_list_can_be_reached(runtime: DockerRuntime, site: Host, other: Host) -> None:
    listed, free = await started(runtime, network_allow_list=(f"{site.address}/32",)), await started(runtime)
    assert await reaches(runtime, listed, site.address, seconds=PATIENT_SECONDS)
    assert not await reaches(runtime, listed, other.address)
    assert await reaches(runtime, free, other.address, seconds=PATIENT_SECONDS)


async def test_rules_of_a_running_sandbox_change(runtime: DockerRuntime, site: Host) -> None:
    sandbox = await started(runtime)
    for changes, is_open in (
        ({"network_block_all": True}, False),
        ({}, True),
        ({"network_allow_list": ("10.0.0.0/8",)}, False),
        ({"network_allow_list": (f"{NETWORK}.0/24", "10.0.0.0/8")}, True),
    ):
        await runtime.hold_network(replace(sandbox, **changes))
        seconds = PATIENT_SECONDS if is_open else SHORT_SECONDS
        assert await reaches(runtime, sandbox, site.address, seconds=seconds) is is_open, changes


async def test_a_connection_that_is_open_is_cut_by_new_rules(runtime: DockerRuntime, site: Host) -> None:
    sandbox = await started(runtime)
    talk = f"exec 3<>/dev/tcp/{site.address}/80; touch /tmp/open; while [ ! -e /tmp/go ]; do sleep 0.1; done; "
    talk += 'printf "GET / HTTP/1.0\\r\\n\\r\\n" >&3; timeout 2 cat <&3 >/tmp/said; touch /tmp/done'
    await execute(runtime, sandbox, f"bash -c '{talk}' >/dev/null 2>&1 & until [ -e /tmp/open ]; do sleep 0.1; done")
    await runtime.hold_network(replace(sandbox, network_allow_list=("10.0.0.0/8",)))
    _, said = await execute(
        runtime, sandbox, "touch /tmp/go; until [ -e /tmp/done ]; do sleep 0.1; done; cat /tmp/said"
    )
    assert "HTTP" not in said


async def test_one_blocked_from_the_beginning_can_be_opened(runtime: DockerRuntime, site: Host) -> None:
    sandbox = await started(runtime, network_block_all=True)
    assert not await reaches(runtime, sandbox, site.address)
    await runtime.hold_network(replace(sandbox, network_block_all=False))
    assert await reaches(runtime, sandbox, site.address, seconds=PATIENT_SECONDS)


async def test_a_blocked_one_is_blocked_after_its_next_start(runtime: DockerRuntime, site: Host) -> None:
    sandbox = await started(runtime)
    await runtime.stop(sandbox.sandbox_id)
    await runtime.start(replace(sandbox, network_block_all=True))
    assert not await reaches(runtime, sandbox, site.address)


async def test_a_domain_of_the_list_is_reached_by_name_and_nothing_else(
    runtime: DockerRuntime, site: Host, other: Host
) -> None:
    sandbox = await started(runtime, domain_allow_list=("*.example.com",))
    assert not await reaches(runtime, sandbox, site.address)  # nobody asked for its name yet
    assert await reaches(runtime, sandbox, "www.example.com", seconds=PATIENT_SECONDS)
    assert await reaches(runtime, sandbox, site.address, seconds=PATIENT_SECONDS)
    assert not await reaches(runtime, sandbox, "other.example.org")
    assert not await reaches(runtime, sandbox, other.address)


async def test_another_name_server_cannot_be_asked(runtime: DockerRuntime) -> None:
    sandbox = await started(runtime, domain_allow_list=("*.example.com",))
    ask = "echo nameserver 192.0.2.53 >/etc/resolv.conf; getent ahostsv4 "
    assert (await execute(runtime, sandbox, f"{ask} www.example.com"))[0] == 0  # ours answers in its place
    assert (await execute(runtime, sandbox, f"{ask} other.example.org"))[0] != 0


async def test_a_listed_sandbox_is_still_kept_from_this_machine(runtime: DockerRuntime) -> None:
    from tests.docker.test_isolation import listening, own_address

    sandbox = await started(runtime, network_allow_list=("0.0.0.0/0",))
    async with listening() as port:
        code, said = await execute(runtime, sandbox, asking(f"{own_address()}:{port}"))
    assert (code != 0, "hello" in said) == (True, False)


async def test_rules_hold_while_the_runner_is_away_and_when_it_comes_back(
    runtime: DockerRuntime, options: DockerOptions, site: Host, other: Host
) -> None:
    sandbox = await started(runtime, network_allow_list=(f"{site.address}/32",), domain_allow_list=("*.example.com",))
    await runtime.close()  # as after a kill: nothing is told, nothing taken away
    assert not await reaches(runtime, sandbox, other.address)
    async with open_docker_runtime(options) as again:
        assert await reaches(again, sandbox, site.address, seconds=PATIENT_SECONDS)
        assert await reaches(again, sandbox, "www.example.com", seconds=PATIENT_SECONDS)
        assert not await reaches(again, sandbox, other.address)


async def test_the_address_of_one_that_is_gone_has_no_rules(runtime: DockerRuntime, engine: Any, site: Host) -> None:
    sandbox = await started(runtime, network_allow_list=("10.0.0.0/8",))
    engine.kill(f"sandyard-{sandbox.sandbox_id}")  # nobody tells the runtime to forget
    engine.wait(f"sandyard-{sandbox.sandbox_id}")
    assert await reaches(runtime, await started(runtime), site.address, seconds=PATIENT_SECONDS)


async def test_the_value_of_a_secret_goes_to_its_hosts_only_and_never_inside(
    runtime: DockerRuntime, site: Host
) -> None:
    grant = SecretGrant("TOKEN", "dtn_secret_abc", "hush-hush", ("www.example.com",))
    sandbox = await started(runtime, secrets=(grant,))
    variables = await runtime.hold_network(sandbox)
    assert "hush-hush" not in str(variables)
    how: dict[str, Any] = {"through": variables["http_proxy"], "seconds": PATIENT_SECONDS}
    how["header"] = "Authorization: Bearer dtn_secret_abc"
    assert "hush-hush" in (await execute(runtime, sandbox, asking("www.example.com", **how)))[1]
    said = (await execute(runtime, sandbox, asking("other.example.org", **how)))[1]
    assert ("dtn_secret_abc" in said, "hush-hush" in said) == (True, False)
    _, found = await execute(runtime, sandbox, "grep -rl hush-hush /run /proc/1/environ /tmp 2>/dev/null; env")
    assert "hush-hush" not in found


async def test_the_proxy_does_not_lead_around_the_rules(runtime: DockerRuntime, site: Host) -> None:
    grant = SecretGrant("TOKEN", "dtn_secret_abc", "hush-hush")
    sandbox = await started(runtime, secrets=(grant,), domain_allow_list=("www.example.com",))
    variables = await runtime.hold_network(sandbox)
    proxy = variables["http_proxy"]
    assert await reaches(runtime, sandbox, "www.example.com", through=proxy, seconds=PATIENT_SECONDS)
    for target in ("other.example.org", "127.0.0.1:3986", "169.254.169.254", f"{NETWORK}.1"):
        assert not await reaches(runtime, sandbox, target, through=proxy), target
