"""Under a service name, as in a compose network or a CI job: allowed by setting, used by a real client."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.programs import CLIENTS, NEWEST_PYTHON_SDK, python_with_sdk, run_program
from tests.contract.running import COMBINATIONS, Instance, start
from tests.contract.toolbox import authorization
from tests.contract.wire_client import request

pytestmark = pytest.mark.sdk

NAME = "ci-sandyard"


@pytest.fixture
def named(tmp_path: Path) -> Iterator[Instance]:
    """A Sandyard that may be called by the service's name."""
    folder = tmp_path / "instance"
    instance = start(COMBINATIONS["sqlite-memory-local"], folder, environment={"SANDYARD_ALLOWED_HOSTS": NAME})
    yield instance
    assert instance.stop() in (0, 143)


@pytest.mark.root
def test_a_program_under_a_service_name_gets_urls_with_that_name(named: Instance, folder: Path) -> None:
    hosts = folder / "hosts"
    hosts.write_text(f"127.0.0.1 localhost {NAME}\n")
    program = f"{python_with_sdk(NEWEST_PYTHON_SDK)} {CLIENTS / 'python' / 'async_flow.py'}"
    # A mount namespace of its own holds the extra line of the hosts file; the machine's is not touched.
    command = ["unshare", "--mount", "sh", "-c", f"mount --bind {hosts} /etc/hosts && exec {program}"]
    url = {"DAYTONA_API_URL": f"http://{NAME}:{named.port}/api"}
    done = run_program(command, named, folder, environment=url)
    assert done.exit_code == 0, done
    assert "apple3" in done.text


def test_every_url_has_the_service_name(named: Instance) -> None:
    host = f"{NAME}:{named.port}"
    answer = request("GET", f"{named.api_url}/config", headers=authorization(named) | {"Host": host})
    assert answer.json()["proxyToolboxUrl"] == f"http://{host}/toolbox"
    other = request("GET", f"{named.api_url}/config", headers=authorization(named) | {"Host": "other:1"})
    assert other.status in (400, 403, 421)
