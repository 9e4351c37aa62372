"""The journal of what the newest Python SDK asked for: masked, searchable, and as curl, HAR and a test."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

daytona_sdk = pytest.importorskip("daytona", reason="the newest Python SDK is a development dependency")

from daytona import CreateSandboxFromSnapshotParams, SessionExecuteRequest  # noqa: E402
from daytona.common.errors import DaytonaNotFoundError  # noqa: E402

from tests.contract.bench import BenchClient  # noqa: E402
from tests.contract.python_client import client  # noqa: E402
from tests.contract.running import Instance  # noqa: E402
from tests.contract.wire_client import request  # noqa: E402
from tests.daemon.conftest import eventually  # noqa: E402

pytestmark = [pytest.mark.sdk, pytest.mark.filterwarnings("ignore")]

SECRET = "do-not-tell-9f2"


@pytest.fixture(scope="module")
def bench(sandyard: Instance) -> Iterator[BenchClient]:
    """A run of the SDK with the journal on."""
    owner = BenchClient(sandyard, sandyard.api_key)
    owner.call("POST", "/journal", {"on": True})
    made = BenchClient.of_new_organization(sandyard)
    with client(sandyard, made.key) as daytona:
        params = CreateSandboxFromSnapshotParams(labels={"for": "journal"}, env_vars={"API_TOKEN": SECRET})
        sandbox = daytona.create(params)
        sandbox.process.exec("echo journaled")
        sandbox.process.create_session("s")
        sandbox.process.execute_session_command("s", SessionExecuteRequest(command="echo line"))
        with pytest.raises(DaytonaNotFoundError):
            daytona.get("nobody")
        # A request is kept when it is over, which its client may know first.
        eventually(lambda: made.call("GET", "/journal?operation=getSandbox&status=404")["records"], 60)
        yield made
    owner.call("POST", "/journal", {"on": False})
    made.call("POST", "/reset", {})
    left = made.call("GET", "/journal")["records"]
    # The client's event socket is a record when it is over, a moment after the client let go of it.
    assert [one for one in left if one["method"] != "WEBSOCKET"] == [], "a reset forgets the records"


def test_every_request_is_there_with_operation_status_sdk_and_sandbox(bench: BenchClient) -> None:
    records = bench.call("GET", "/journal")["records"]
    operations = [(one["operation"], one["status"]) for one in records if one["method"] != "WEBSOCKET"]
    for expected in (("createSandbox", 200), ("ExecuteCommand", 200), ("getSandbox", 404)):
        assert expected in operations
    created = next(one for one in records if one["operation"] == "createSandbox")
    executed = next(one for one in records if one["operation"] == "ExecuteCommand")
    assert created["sandbox"] == executed["sandbox"]
    assert executed["source"] == "sdk-python"
    assert executed["version"].startswith("0.226")
    assert "journaled" in executed["responseBody"]
    assert executed["seconds"] > 0


def test_secrets_are_in_no_record_and_no_export(bench: BenchClient, sandyard: Instance) -> None:
    for form in ("json", "curl", "har", "pytest"):
        text = bench.ask("GET", f"/journal?format={form}").body.decode()
        assert bench.key not in text
        assert SECRET not in text
    assert sandyard.api_key not in bench.ask("GET", "/journal").body.decode()


def test_records_are_searched(bench: BenchClient) -> None:
    assert {one["status"] for one in bench.call("GET", "/journal?status=404")["records"]} == {404}
    found = bench.call("GET", "/journal?operation=ExecuteCommand&text=journaled")["records"]
    assert len(found) == 1
    assert bench.call("GET", f"/journal?since={found[0]['number']}&operation=ExecuteCommand")["records"] == []
    assert bench.ask("GET", "/journal?colour=red").status == 400


def test_another_organization_sees_none_of_it(bench: BenchClient, sandyard: Instance) -> None:
    other = BenchClient.of_new_organization(sandyard)
    assert other.call("GET", "/journal")["records"] == []
    assert other.ask("POST", "/journal", {"on": False}).status == 400
    assert request("GET", f"{sandyard.origin}/_sandyard/journal").status == 401


def test_the_coverage_report_names_touched_untouched_and_error_paths(bench: BenchClient) -> None:
    told = bench.call("GET", "/journal/coverage")
    assert told["statuses"]["ExecuteCommand"] == {"200": 1}
    assert told["errors"]["getSandbox"] == ["404 NOT_FOUND"]
    assert "stopSandbox" in told["untouched"]
    assert "ExecuteCommand" in told["withoutErrors"]
    assert 0 < told["touched"] < told["operations"]


def test_the_har_export_is_an_archive_of_version_1_2(bench: BenchClient) -> None:
    log = bench.call("GET", "/journal?format=har")["log"]
    assert log["version"] == "1.2"
    entry = next(one for one in log["entries"] if one["request"]["url"].endswith("/process/execute"))
    assert entry["response"]["status"] == 200
    assert json.loads(entry["request"]["postData"]["text"])["command"] == "echo journaled"


def test_the_curl_export_asks_the_same_again(bench: BenchClient, sandyard: Instance, tmp_path: Path) -> None:
    own = BenchClient.of_new_organization(sandyard)  # what the script asks is another record there
    with client(sandyard, own.key) as daytona:
        daytona.create().process.exec("echo journaled")
    script, asked = tmp_path / "again.sh", "/journal?operation=ExecuteCommand"
    eventually(lambda: own.call("GET", asked)["records"])
    script.write_bytes(own.ask("GET", f"{asked}&format=curl").body)
    environment = {"DAYTONA_API_URL": sandyard.api_url, "DAYTONA_API_KEY": own.key, "PATH": "/usr/bin:/bin"}
    done = subprocess.run(["sh", str(script)], capture_output=True, text=True, env=environment, timeout=30, check=True)
    assert json.loads(done.stdout)["result"] == "journaled\n"
    own.call("POST", "/reset", {})


def test_the_pytest_export_is_a_test_that_passes(bench: BenchClient, tmp_path: Path) -> None:
    (tmp_path / "test_again.py").write_bytes(bench.ask("GET", "/journal?format=pytest").body)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore", "--rootdir", "."]
    done = subprocess.run(
        [*command, "--sandyard-url", bench.sandyard.origin, "--sandyard-key", bench.sandyard.api_key],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout
