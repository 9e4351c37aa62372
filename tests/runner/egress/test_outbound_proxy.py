"""Requests of a sandbox through an HTTP proxy of the user's, from inside, with a proxy on a host of the test's own."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from msgspec.structs import replace

from sandyard_api.jobs.wire import SecretGrant
from sandyard_runner.runtime.local.runtime import LocalRuntime
from tests.hosts import NETWORK, PROXY, Host, Network
from tests.runner.egress.conftest import PLACEHOLDER, VALUE, Box, Certificates, boxed
from tests.runner.egress.test_http1 import CURL, told
from tests.runner.test_local_namespaces import a_spec

pytestmark = [pytest.mark.root, pytest.mark.asyncio(loop_scope="module")]
Asked = Callable[[], list[str]]
LATE = "late.example.net"
"""A name that only the proxy can look up."""


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("proxy") / "log"


@pytest.fixture
def asked(log: Path, proxy: Host) -> Asked:
    """What the proxy was asked in this test."""
    log.write_text("")
    return lambda: log.read_text().splitlines()


@pytest.fixture(scope="module")
def proxy(network: Network, site: Host, certificates: Certificates, log: Path) -> Host:
    """Port 3128 in clear, 3129 in TLS."""
    host = network.host(20)
    names = [f"{name}={site.address}" for name in ("www.example.com", "other.example.org", LATE)]
    host.start("3128", str(log), "-", *names, server=PROXY)
    host.start("3129", str(log), str(certificates.site), *names, server=PROXY)
    return host


@pytest_asyncio.fixture(loop_scope="module", params=["http", "https"])
async def proxied(request: pytest.FixtureRequest, runtime: LocalRuntime, proxy: Host) -> AsyncIterator[Box]:
    """With a proxy by its address, or by its name in TLS."""
    place = f"{proxy.address}:3128" if request.param == "http" else "proxy.example.com:3129"
    grant = SecretGrant("TOKEN", PLACEHOLDER, VALUE, ("www.example.com",))
    spec = replace(a_spec(), outbound_proxy_url=f"{request.param}://me:p%40ss@{place}", secrets=(grant,))
    made = await boxed(runtime, spec)
    yield made
    await runtime.remove(spec.sandbox_id)


async def test_requests_go_through_the_proxy_with_its_credentials(proxied: Box, asked: Asked) -> None:
    for url, line in (
        ("http://other.example.org/echo?a=1", "GET http://other.example.org/echo?a=1 HTTP/1.1 +"),
        (f"http://{LATE}/echo", f"GET http://{LATE}/echo HTTP/1.1 +"),
        ("https://other.example.org/echo", "CONNECT other.example.org:443 HTTP/1.1 +"),
    ):
        code, said = await proxied.sh(f"{CURL} -k {url}")
        assert (code, asked()[-1]) == (0, line), said


async def test_secrets_are_put_in_on_the_way_in_either_version(proxied: Box, asked: Asked) -> None:
    for version, said_version in (("--http2", "2"), ("--http1.1", "1.1")):
        _, said = await proxied.sh(f'curl -sS -m 120 {version} -H "X: $TOKEN" https://www.example.com/echo')
        seen = told(said)
        assert (seen["version"], dict(seen["headers"])["x"]) == (said_version, VALUE)
    assert set(asked()) == {"CONNECT www.example.com:443 HTTP/1.1 +"}


async def test_the_credentials_are_not_inside(proxied: Box) -> None:
    _, said = await proxied.sh(
        "env; cat /proc/*/environ; grep -r 'p@ss\\|p%40ss\\|bWU6cEBzcw' /run /tmp /home 2>/dev/null"
    )
    assert "http_proxy" in said
    for word in ("p@ss", "p%40ss", "bWU6cEBzcw", "3128@", "proxy.example.com"):
        assert word not in said


async def test_this_machine_is_not_asked_for(proxied: Box, asked: Asked) -> None:
    for target in ("127.0.0.1:22", "169.254.169.254", f"{NETWORK}.1", "localhost"):
        _, said = await proxied.sh(f"{CURL} --noproxy '' -w '%{{http_code}}' http://{target}/")
        assert said.endswith("403"), said
    assert asked() == []


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"http://{NETWORK}.20:3128", "refused www.example.com:444: 407"),
        (f"http://me:wrong@{NETWORK}.20:3128", "refused www.example.com:444: 407"),
        (f"http://{NETWORK}.20:9", f"outbound proxy {NETWORK}.20:9 does not answer"),
        ("http://nobody.example.com:3128", "outbound proxy nobody.example.com:3128"),
        ("http://127.0.0.1:3128", "at an address that sandboxes may not reach"),
    ],
    ids=("no credentials", "wrong ones", "no answer", "no such host", "ours"),
)
async def test_what_is_wrong_with_the_proxy_is_told(runtime: LocalRuntime, proxy: Host, url: str, words: str) -> None:
    spec = replace(
        a_spec(), outbound_proxy_url=url, secrets=(SecretGrant("T", PLACEHOLDER, VALUE, ("www.example.com",)),)
    )
    made = await boxed(runtime, spec)
    _, said = await made.sh(f"{CURL} -w '%{{http_code}}' https://www.example.com:444/echo")
    assert (words in said, said.endswith("502"), "wrong" in said) == (True, True, False), said
    await runtime.remove(spec.sandbox_id)


async def test_with_a_domain_list_there_is_no_other_way(runtime: LocalRuntime, proxy: Host, site: Host) -> None:
    spec = replace(
        a_spec(), outbound_proxy_url=f"http://me:p%40ss@{proxy.address}:3128", domain_allow_list=("www.example.com",)
    )
    made = await boxed(runtime, spec)
    assert "SSL_CERT_FILE" not in made.exports  # nothing is opened without secrets
    assert (await made.sh(f"{CURL} -f http://www.example.com/echo"))[0] == 0
    around = "curl -sS -m 4 --noproxy '*'"
    assert (await made.sh(f"{around} http://www.example.com/echo"))[0] != 0
    assert (await made.sh(f"{around} http://{site.address}/echo"))[0] != 0
    assert (await made.sh(f"{around} http://{proxy.address}:3128/"))[0] != 0
    assert (await made.sh(f"{CURL} -f http://other.example.org/echo"))[0] != 0
    await runtime.remove(spec.sandbox_id)
