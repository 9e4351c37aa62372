"""Rules, name lookups and secrets of sandboxes in namespaces, tried from inside against hosts of the test's own."""

import datetime
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec.structs import replace

from sandyard_api.jobs.wire import SandboxSpec, SecretGrant
from sandyard_runner.runtime.local import network as uplinks
from sandyard_runner.runtime.local.options import LocalOptions
from sandyard_runner.runtime.local.runtime import LocalRuntime, open_local_runtime
from sandyard_runner.runtime.local.veth import Veth
from tests.hosts import NETWORK, Host, Network, open_network
from tests.runner.test_local_namespaces import a_spec, run, started

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("nft"), reason="needs root and nft"),
]
PLACEHOLDER, VALUE = "dtn_secret_abc", "hush-hush"


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with open_network() as opened:
        yield opened


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the site, signed by itself: key and certificate in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "www.example.com")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("www.example.com"), x509.DNSName("other.example.org")]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("site") / "site.pem"
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, *plain) + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture(scope="module")
def site(network: Network, certificate: Path) -> Host:
    host = network.host(10)
    host.start("http", "80")
    host.start("https", "443", str(certificate))
    return host


@pytest.fixture(scope="module")
def other(network: Network, certificate: Path) -> Host:
    host = network.host(11)
    host.start("http", "80")
    host.start("https", "443", str(certificate))
    return host


@pytest.fixture(scope="module")
def names(network: Network, site: Host, other: Host) -> Host:
    host = network.host(53)
    host.start("dns", f"www.example.com={site.address}", f"other.example.org={other.address}")
    return host


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture
def options(tmp_path: Path, bundles: Path, names: Host) -> LocalOptions:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "bundles").symlink_to(bundles)
    return LocalOptions(tmp_path / "data", tmp_path / "doors", name_servers=(names.address,))


@pytest.fixture(params=["slirp4netns", "veth"])
async def runtime(
    request: pytest.FixtureRequest,
    options: LocalOptions,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[LocalRuntime]:
    """With either way out."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))  # what our proxy trusts
    found = [uplink for uplink in uplinks.find_uplinks() if uplink.name == request.param]
    if not found:
        pytest.skip(f"{request.param} is not installed")
    async with open_local_runtime(options) as opened:
        opened._layout.uplink = found[0]
        yield opened
        for item in await opened.present():
            await opened.remove(item.sandbox_id)
    assert leftovers(options) == []


def leftovers(options: LocalOptions) -> list[str]:
    """Links, tables and rules of an installation's veth pairs."""
    prefix = Veth(options.data_dir)._prefix
    said = os.listdir("/sys/class/net")
    for command in (["nft", "list", "tables"], ["iptables", "-w", "-S", "FORWARD"]):
        if shutil.which(command[0]) is None:
            continue
        said += subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in said if prefix in line]


SHORT_SECONDS, PATIENT_SECONDS = 3, 30
"""For what must be reached: on a busy machine that takes its time. What must not be is waited for shortly."""


async def reaches(runtime: LocalRuntime, spec: SandboxSpec, target: str, seconds: int = SHORT_SECONDS) -> bool:
    code, _ = await run(runtime, spec, f"curl -s -m {seconds} --noproxy '*' http://{target}/")
    return code == 0


async def test_without_rules_the_hosts_of_the_test_can_be_reached(
    runtime: LocalRuntime, site: Host, other: Host
) -> None:
    """So that the tests below can fail."""
    spec = await started(runtime, a_spec())
    assert await reaches(runtime, spec, site.address, PATIENT_SECONDS)
    assert await reaches(runtime, spec, other.address, PATIENT_SECONDS)


async def test_this_machine_cannot_be_reached(runtime: LocalRuntime) -> None:
    spec = await started(runtime, a_spec())
    for address in (f"{NETWORK}.1", "172.17.0.1"):
        code, _ = await run(runtime, spec, f"bash -c 'exec 3<>/dev/tcp/{address}/22' 2>&1")
        assert code != 0
    assert not await reaches(runtime, spec, "169.254.169.254")


async def test_two_sandboxes_cannot_reach_each_other(runtime: LocalRuntime) -> None:
    one, two = await started(runtime, a_spec()), await started(runtime, a_spec())
    serve = "python3 -c 'import socket; s = socket.create_server((\"\", 8000)); s.accept()' >/dev/null 2>&1 &"
    await run(runtime, one, f"{serve} until curl -s telnet://127.0.0.1:8000 </dev/null; do :; done; {serve}")
    _, addresses = await run(runtime, one, "hostname -I")
    for address in addresses.split():
        if not address.startswith("10.0.2."):  # of slirp4netns: both have it
            assert not await reaches(runtime, two, f"{address}:8000")


async def test_only_networks_of_the_list_can_be_reached(runtime: LocalRuntime, site: Host, other: Host) -> None:
    spec = await started(runtime, replace(a_spec(), network_allow_list=(f"{site.address}/32",)))
    assert await reaches(runtime, spec, site.address, PATIENT_SECONDS)
    assert not await reaches(runtime, spec, other.address)


async def test_rules_of_a_running_sandbox_change(runtime: LocalRuntime, site: Host) -> None:
    spec = await started(runtime, replace(a_spec(), network_block_all=True))
    changes: list[tuple[SandboxSpec, bool]] = [
        (spec, False),
        (replace(spec, network_block_all=False), True),
        (replace(spec, network_block_all=False, network_allow_list=("10.0.0.0/8",)), False),
        (replace(spec, network_block_all=False, network_allow_list=(f"{NETWORK}.0/24",)), True),
        (spec, False),
    ]
    for changed, is_open in changes:
        await runtime.hold_network(changed)
        seconds = PATIENT_SECONDS if is_open else SHORT_SECONDS
        assert await reaches(runtime, spec, site.address, seconds) is is_open, changed


async def test_root_inside_cannot_take_the_rules_away(runtime: LocalRuntime, site: Host) -> None:
    spec = await started(runtime, replace(a_spec(user="root"), network_allow_list=("10.0.0.0/8",)))
    code, said = await run(runtime, spec, "id -u; nft flush ruleset 2>&1; unshare -r nft flush ruleset 2>&1")
    assert (code != 0, said.splitlines()[0]) == (True, "0")
    assert not await reaches(runtime, spec, site.address)


async def test_a_domain_of_the_list_is_reached_by_name_and_nothing_else(
    runtime: LocalRuntime, site: Host, other: Host
) -> None:
    spec = await started(runtime, replace(a_spec(), domain_allow_list=("*.example.com",)))
    assert not await reaches(runtime, spec, site.address)  # nobody asked for its name yet
    assert await reaches(runtime, spec, "www.example.com", PATIENT_SECONDS)
    assert await reaches(runtime, spec, site.address, PATIENT_SECONDS)
    assert not await reaches(runtime, spec, "other.example.org")
    assert not await reaches(runtime, spec, other.address)


CLIENTS = {
    "curl": "curl -s -m 30 -H 'Authorization: Bearer $TOKEN' {url}",
    "curl with a password": "curl -s -m 30 -u user:$TOKEN {url}",
    "curl with a body": "curl -s -m 30 -d key=$TOKEN {url}",
    "python": (
        'python3 -c "import os, urllib.request as u; '
        "print(u.urlopen(u.Request('{url}', headers={{'X-Key': os.environ['TOKEN']}}), timeout=30).read().decode())\""
    ),
}


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_the_value_of_a_secret_goes_to_its_host(
    runtime: LocalRuntime, client: str, scheme: str, site: Host
) -> None:
    grant = SecretGrant("TOKEN", PLACEHOLDER, VALUE, ("www.example.com",))
    spec = await started(runtime, replace(a_spec(), secrets=(grant,)))
    export = exports(await runtime.hold_network(spec))
    command = (
        CLIENTS[client]
        .format(url=f"{scheme}://www.example.com/path")
        .replace("'Authorization: Bearer $TOKEN'", '"Authorization: Bearer $TOKEN"')
    )
    code, said = await run(runtime, spec, f"{export} {command}")
    is_basic = client.endswith("password")
    assert (code, ("dXNlcjpodXNoLWh1c2g=" if is_basic else VALUE) in said, PLACEHOLDER in said) == (0, True, False), (
        said
    )


async def test_another_host_gets_the_placeholder(runtime: LocalRuntime, certificate: Path, other: Host) -> None:
    grant = SecretGrant("TOKEN", PLACEHOLDER, VALUE, ("www.example.com",))
    spec = await started(runtime, replace(a_spec(), secrets=(grant,)))
    export = exports(await runtime.hold_network(spec))
    for scheme in ("http", "https"):  # the second is a tunnel: the certificate is the site's own, which nobody trusts
        _, said = await run(runtime, spec, f'{export} curl -k -s -m 30 -H "X: $TOKEN" {scheme}://other.example.org/')
        assert (PLACEHOLDER in said, VALUE in said) == (True, False)
    assert "hush" not in (await run(runtime, spec, "env; cat /proc/1/environ; grep -r hush-hush /run /tmp /home"))[1]


async def test_the_proxy_does_not_lead_around_the_rules(runtime: LocalRuntime, site: Host) -> None:
    grant = SecretGrant("TOKEN", PLACEHOLDER, VALUE)
    spec = await started(runtime, replace(a_spec(), secrets=(grant,), domain_allow_list=("www.example.com",)))
    export = exports(await runtime.hold_network(spec))
    ask = f"{export} curl -s -f -m 30 "
    assert (await run(runtime, spec, f"{ask} http://www.example.com/"))[0] == 0
    for target in ("other.example.org", f"{NETWORK}.1", "169.254.169.254", "127.0.0.1:22"):
        assert (await run(runtime, spec, f"{ask} --noproxy '' http://{target}/"))[0] != 0, target
        assert (await run(runtime, spec, f"{ask} --noproxy '' -k https://{target}/"))[0] != 0, target


async def test_what_a_killed_one_left_is_swept_by_the_next(options: LocalOptions) -> None:
    veth = Veth(options.data_dir)
    process = subprocess.Popen(["unshare", "--net", "sleep", "60"])  # noqa: ASYNC220
    try:
        while os.readlink(f"/proc/{process.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
            pass
        await veth.connect("gone", process.pid)
        assert len(leftovers(options)) == 4
        async with open_local_runtime(options):
            assert leftovers(options) == []
    finally:
        process.kill()
        process.wait()


def exports(variables: object) -> str:
    assert isinstance(variables, dict)
    return " ".join(f"export {name}={value};" for name, value in (variables | {"TOKEN": PLACEHOLDER}).items())
