"""A sandbox in namespaces with secrets, the host it talks to in both versions of HTTP, and one that names it."""

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography import x509
from msgspec.structs import replace

from sandyard.certificates import new_authority, new_server_certificate
from sandyard_api.jobs.wire import SandboxSpec, SecretGrant
from sandyard_runner.runtime.local.options import LocalOptions
from sandyard_runner.runtime.local.runtime import LocalRuntime, open_local_runtime
from tests.hosts import NETWORK, TALKING, Host, Network, open_network
from tests.runner.test_local_namespaces import a_spec, run, started

HOSTS = ("www.example.com", "other.example.org")
PLACEHOLDER, VALUE = "dtn_secret_abc", "hush-hush"
ODD_PLACEHOLDER, ODD_VALUE = "dtn_secret_odd", 'a "quoted" & two\nlines'


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    if os.geteuid() != 0 or not shutil.which("nft"):
        pytest.skip("needs root and nft")
    with open_network() as opened:
        yield opened


@dataclass(frozen=True)
class Certificates:
    """Of the hosts: what vouches for them, and their own with its key."""

    authority: Path
    site: Path


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("site")
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "test authority")])
    authority, key = new_authority(name)
    names = [x509.DNSName(each) for each in (*HOSTS, "proxy.example.com")]
    site, site_key = new_server_certificate(authority, key, "test", names, timedelta(days=1))
    made = Certificates(folder / "authority.pem", folder / "site.pem")
    made.authority.write_bytes(authority)
    made.site.write_bytes(site_key + site)
    return made


@pytest.fixture(scope="module")
def site(network: Network, certificates: Certificates) -> Host:
    """Port 80 in clear, 443 with HTTP/2, 444 without."""
    host = network.host(10)
    host.start("80", server=TALKING)
    host.start("443", str(certificates.site), "h2", "http/1.1", server=TALKING)
    host.start("444", str(certificates.site), server=TALKING)
    return host


@pytest.fixture(scope="module")
def names(network: Network, site: Host) -> Host:
    host = network.host(53)
    host.start("dns", *(f"{name}={site.address}" for name in HOSTS), f"proxy.example.com={NETWORK}.20")
    return host


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runtime(
    tmp_path_factory: pytest.TempPathFactory, names: Host, certificates: Certificates
) -> AsyncIterator[LocalRuntime]:
    folder = tmp_path_factory.mktemp("runtime")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(certificates.authority))  # what our proxy trusts
        options = LocalOptions(folder / "data", folder / "doors", name_servers=(names.address,))
        async with open_local_runtime(options) as opened:
            if opened._layout.uplink is None:
                pytest.skip("sandboxes have no way out here")
            yield opened
            for item in await opened.present():
                await opened.remove(item.sandbox_id)


@dataclass(frozen=True)
class Box:
    """A sandbox with secrets; `sh` runs a command with their variables set."""

    runtime: LocalRuntime
    spec: SandboxSpec
    exports: str

    async def sh(self, command: str) -> tuple[int, str]:
        """Exit code and output."""
        return await run(self.runtime, self.spec, f"{self.exports}{command}")


async def boxed(runtime: LocalRuntime, spec: SandboxSpec) -> Box:
    """A running sandbox of that spec."""
    await started(runtime, spec)
    variables = {**await runtime.hold_network(spec), **{grant.variable: grant.placeholder for grant in spec.secrets}}
    return Box(runtime, spec, "".join(f"export {name}='{value}'\n" for name, value in variables.items()))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def box(runtime: LocalRuntime) -> Box:
    hosts = ("www.example.com",)
    grants = (SecretGrant("TOKEN", PLACEHOLDER, VALUE, hosts), SecretGrant("ODD", ODD_PLACEHOLDER, ODD_VALUE, hosts))
    return await boxed(runtime, replace(a_spec(), secrets=grants))
