"""Warm pools through the newest SDKs and real sandboxes: what is claimed is the user's own, and keeps its variables."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("daytona", reason="the newest Python SDK is a development dependency")

from daytona import CreateSandboxFromSnapshotParams, Daytona, SessionExecuteRequest

from tests.contract.programs import CLIENTS, bundle, run_program
from tests.contract.python_client import client
from tests.contract.running import Instance
from tests.contract.toolbox import authorization
from tests.contract.wire_client import request

pytestmark = [pytest.mark.sdk, pytest.mark.filterwarnings("ignore")]

SECONDS = 90
CLAIMED = "claimed from a warm pool by a request"


def call(sandyard: Instance, method: str, path: str, body: Any = None) -> Any:
    """The JSON answer of the API, which must be a success."""
    answer = request(method, sandyard.origin + path, body, headers=authorization(sandyard))
    assert answer.status < 300, answer
    return answer.json() if answer.body else None


def wait_for(sandyard: Instance, pool_id: str, size: int) -> None:
    """Return when that many wait in the pool."""
    deadline = time.monotonic() + SECONDS
    while True:
        [pool] = [each for each in call(sandyard, "GET", "/api/warm-pools") if each["id"] == pool_id]
        if pool["currentSize"] == size:
            return
        assert time.monotonic() < deadline, pool
        time.sleep(0.1)


@pytest.fixture
def pool_id(sandyard: Instance) -> Iterator[str]:
    """A full pool of two; gone with all that waits in it at the end."""
    made = call(sandyard, "POST", "/api/warm-pools", {"snapshot": "sandyard-default", "pool": 2})
    wait_for(sandyard, made["id"], 2)
    yield made["id"]
    call(sandyard, "DELETE", f"/api/warm-pools/{made['id']}")
    deadline = time.monotonic() + SECONDS
    while any("warmPoolId" in item for item in call(sandyard, "GET", "/api/sandbox?includeWarm=true")["items"]):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_claimed_sandbox_has_what_was_asked_for_and_keeps_it_over_a_restart(sandyard: Instance, pool_id: str) -> None:
    with client(sandyard, sandyard.api_key) as daytona:
        sandbox = _claim(daytona, sandyard, env_vars={"GREETING": "hello"}, labels={"a": "b"}, name="warm-one")
        assert (sandbox.name, sandbox.labels["a"], sandbox.state.value) == ("warm-one", "b", "started")
        command = "echo $GREETING $DAYTONA_ORGANIZATION_ID"
        assert sandbox.process.exec(command).result.split() == ["hello", sandbox.organization_id]
        sandbox.process.create_session("s")
        told = sandbox.process.execute_session_command("s", SessionExecuteRequest(command=command))
        assert (told.stdout or "").split() == ["hello", sandbox.organization_id]
        sandbox.fs.upload_file(b"kept", "file.txt")
        sandbox.stop()
        sandbox.start()
        assert sandbox.process.exec(command).result.split() == ["hello", sandbox.organization_id]
        assert sandbox.fs.download_file("file.txt") == b"kept"
        sandbox.delete()


def test_a_pool_is_full_again_after_claims(sandyard: Instance, pool_id: str) -> None:
    with client(sandyard, sandyard.api_key) as daytona:
        sandboxes = [_claim(daytona, sandyard) for _ in range(2)]
        assert len({sandbox.id for sandbox in sandboxes}) == 2
        wait_for(sandyard, pool_id, 2)
        assert {item.id for item in daytona.list()} >= {sandbox.id for sandbox in sandboxes}
        for sandbox in sandboxes:
            sandbox.delete()


def test_the_typescript_sdk_claims_as_well(sandyard: Instance, pool_id: str, tmp_path: Path) -> None:
    options = ("--format=esm", "--platform=node", "--bundle", "--packages=external", "--alias:the-sdk=@daytona/sdk")
    program = bundle(CLIENTS / "typescript" / "warm.ts", Path("warm.mjs"), *options)
    waiting = {item["id"] for item in call(sandyard, "GET", "/api/sandbox?includeWarm=true")["items"]}
    done = run_program(["node", program], sandyard, tmp_path)
    assert done.exit_code == 0, done
    saw = json.loads(done.text)
    assert saw.pop("id") in waiting
    assert (saw["state"], saw["said"], saw["labels"]["from"]) == ("started", "hello\n", "pool")


def _claim(daytona: Daytona, sandyard: Instance, **asked: Any) -> Any:
    sandbox = daytona.create(CreateSandboxFromSnapshotParams(**asked))
    history = call(sandyard, "GET", f"/_sandyard/sandboxes/{sandbox.id}")["history"]
    assert CLAIMED in [change["cause"] for change in history]
    return sandbox
