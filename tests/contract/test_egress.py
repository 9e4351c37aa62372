"""Network settings and secrets as the newest Python SDK has them, against hosts of the test's own."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("daytona", reason="the newest Python SDK is a development dependency")

from daytona import CreateSandboxFromSnapshotParams, CreateSecretParams, Daytona, Sandbox, UpdateSecretParams
from daytona.common.errors import DaytonaError

from tests.contract.python_client import client
from tests.contract.running import COMBINATIONS, Combination, Instance, chosen_combinations, start
from tests.contract.toolbox import authorization
from tests.contract.wire_client import request
from tests.engine import need_engine
from tests.hosts import NETWORK, PROXY, Host, Network, open_network

pytestmark = [
    pytest.mark.sdk,
    pytest.mark.root,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("nft"), reason="needs root and nft"),
]
CHOSEN = [COMBINATIONS[name] for name in chosen_combinations(os.environ) if COMBINATIONS[name].isolation is None]
PATIENCE = 30
"""Seconds for what is let through: it comes at once, but for a name that is asked for again after five."""
FORMS = {(each.runtime, each.user) for each in CHOSEN}


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with open_network() as opened:
        yield opened


@pytest.fixture(scope="module")
def site(network: Network) -> Host:
    host = network.host(10)
    host.start("http", "80")
    return host


@pytest.fixture(scope="module")
def names(network: Network, site: Host) -> Host:
    host = network.host(53)
    host.start("dns", f"www.example.com={site.address}", f"other.example.org={site.address}")
    return host


@pytest.fixture(params=sorted(FORMS, key=str), ids=lambda form: "-".join(filter(None, form)))
def instance(request: pytest.FixtureRequest, names: Host) -> Iterator[Instance]:
    """A Sandyard that asks the test's name server."""
    runtime, user = request.param
    if runtime == "docker":
        need_engine()
    with tempfile.TemporaryDirectory(prefix="egress-", ignore_cleanup_errors=True) as home:
        environment = {"SANDYARD_NAME_SERVERS": names.address}
        opened = start(Combination("egress", runtime, user=user), Path(home), environment=environment)
        yield opened
        assert opened.process.poll() is not None or opened.stop() in (0, 143)
        down = [str(Path(sys.executable).with_name("sandyard")), "down", "--data-dir", f"{home}/data"]
        subprocess.run(down, check=False, capture_output=True)


@pytest.fixture
def daytona(instance: Instance) -> Iterator[Daytona]:
    with client(instance, instance.api_key) as opened:
        yield opened


def need_way_out(instance: Instance) -> None:
    """Skip where sandboxes have loopback only, as those of an ordinary user without /dev/net/tun."""
    answer = request("GET", f"{instance.origin}/_sandyard/capabilities", headers=authorization(instance)).json()
    row = answer["runners"][0]["capabilities"].get("internet", {"enforcement": "enforced"})
    if row["enforcement"] != "enforced":
        pytest.skip(row["detail"])


def reaches(sandbox: Sandbox, target: str, seconds: int = 4) -> bool:
    """Whether a request from inside is answered within that time."""
    talk = f'exec 3<>/dev/tcp/{target}/80 && printf "GET / HTTP/1.0\\r\\n\\r\\n" >&3 && cat <&3'
    return "200 OK" in str(sandbox.process.exec(f"timeout {seconds} bash -c '{talk}' 2>&1").result)


def test_a_life_of_network_settings(instance: Instance, daytona: Daytona, site: Host) -> None:
    need_way_out(instance)
    made = daytona.create(CreateSandboxFromSnapshotParams(network_block_all=True))
    assert (made.network_block_all, reaches(made, site.address)) == (True, False)
    made.update_network_settings(network_block_all=False)
    assert (made.network_block_all, reaches(made, site.address, PATIENCE)) == (False, True)
    made.update_network_settings(network_allow_list="10.0.0.0/8")
    assert (made.network_allow_list, reaches(made, site.address)) == ("10.0.0.0/8", False)
    made.update_network_settings(network_allow_list=f"10.0.0.0/8,{site.address}/32")
    assert reaches(made, site.address, PATIENCE)
    made.update_network_settings(network_block_all=False, domain_allow_list="*.example.com")
    assert not reaches(made, site.address)
    assert reaches(made, "www.example.com", PATIENCE)
    assert not reaches(made, "other.example.org")
    with pytest.raises(DaytonaError, match="Missing CIDR prefix length"):
        made.update_network_settings(network_allow_list="10.0.0.0")
    made.stop()
    made.start()
    assert not reaches(made, "other.example.org")
    assert reaches(made, "www.example.com", PATIENCE)
    made.delete()


def test_a_life_of_a_secret(daytona: Daytona) -> None:
    secret = daytona.secret.create(CreateSecretParams(name="shop", value="hush-hush", hosts=["www.example.com"]))
    assert [item.name for item in daytona.secret.list().items] == ["shop"]
    made = daytona.create(CreateSandboxFromSnapshotParams(secrets={"SHOP_KEY": "shop"}))
    assert made.process.exec("echo $SHOP_KEY").result.strip() == secret.placeholder
    ask = 'python3 -c "import os, urllib.request as u; '
    ask += "print(u.urlopen(u.Request('http://{}/', headers={{'X-Key': os.environ['SHOP_KEY']}})).read().decode())\""
    assert "hush-hush" in made.process.exec(ask.format("www.example.com")).result
    assert "hush-hush" not in made.process.exec(ask.format("other.example.org")).result
    assert "hush-hush" not in made.process.exec("env; cat /proc/*/environ 2>/dev/null").result
    daytona.secret.update(secret.id, UpdateSecretParams(value="other-value"))
    made.update_secrets({"SHOP": "shop"})
    assert "other-value" in made.process.exec(ask.replace("SHOP_KEY", "SHOP").format("www.example.com")).result
    made.update_secrets({})
    assert made.process.exec("echo $SHOP$http_proxy").result.strip() == ""
    with pytest.raises(DaytonaError, match="Secret nobody not found"):
        made.update_secrets({"A": "nobody"})
    made.delete()
    daytona.secret.delete(secret.id)


def test_rules_hold_after_a_kill_and_a_new_start(instance: Instance, daytona: Daytona, site: Host, names: Host) -> None:
    made = daytona.create(CreateSandboxFromSnapshotParams(domain_allow_list="*.example.com"))
    instance.process.send_signal(signal.SIGKILL)
    instance.process.wait()
    again = start(instance.combination, instance.folder, environment={"SANDYARD_NAME_SERVERS": names.address})
    try:
        with client(again, again.api_key) as other:
            found = other.get(made.id)
            if (
                instance.combination.runtime == "local"
            ):  # they end with Sandyard, which tells so a moment after its start
                found.wait_for_sandbox_stop()
                found.start()
            assert not reaches(found, "other.example.org")
            assert not reaches(found, f"{NETWORK}.53")
            assert reaches(found, "www.example.com", PATIENCE)
            found.delete()
    finally:
        assert again.stop() in (0, 143)


def test_requests_go_through_an_outbound_proxy_whose_credentials_stay_outside(
    instance: Instance, daytona: Daytona, network: Network, site: Host, tmp_path: Path
) -> None:
    need_way_out(instance)
    proxy = network.host(20 + len(network.hosts))  # one for each instance
    log = tmp_path / "log"
    proxy.start("3128", str(log), "-", f"www.example.com={site.address}", server=PROXY)
    url = f"http://me:p%40ss@{proxy.address}:3128"
    made = daytona.create(CreateSandboxFromSnapshotParams(outbound_proxy_url=url))
    assert made.outbound_proxy_url == f"http://{proxy.address}:3128"
    ask = "import urllib.request as u; print(u.urlopen('http://www.example.com/path', timeout=20).read().decode())"
    answer = made.process.exec(f'python3 -c "{ask}"')
    assert (answer.exit_code, '"path": "/path"' in answer.result) == (0, True), answer.result
    assert log.read_text() == "GET http://www.example.com/path HTTP/1.1 +\n"
    said = made.process.exec("env; cat /proc/*/environ 2>/dev/null").result
    assert ("http_proxy=" in said, "p%40ss" in said, "p@ss" in said) == (True, False, False)
    with pytest.raises(DaytonaError, match="Invalid outbound proxy URL"):
        daytona.create(CreateSandboxFromSnapshotParams(outbound_proxy_url="socks5://a.b"))
    made.delete()
