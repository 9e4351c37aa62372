"""The test bench where API, runner and proxy are processes of their own."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from sandyard.testing.client import BenchError, Door, Yard, new_yard, remove_yard
from tests.conformance.redis_server import RedisServer
from tests.sandyard.command import SANDYARD, SECONDS, clean_environment

KEY = "sy_key-of-the-owner"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    """An organization of a distributed Sandyard."""
    folder = tmp_path_factory.mktemp("parts")
    redis = RedisServer.start_or_skip(folder)
    api, internal, runner, proxy = (_free_port() for _ in range(4))
    environment = clean_environment(
        SANDYARD_API_KEY=KEY,
        SANDYARD_INTERNAL_TOKEN="internal",
        SANDYARD_BUS_URL=redis.url,
        SANDYARD_DATA_DIR=str(folder / "data"),
        SANDYARD_RUNTIME="local",
        SANDYARD_ISOLATION="none",
        SANDYARD_INTERNAL_LISTEN=f"127.0.0.1:{internal}",
        SANDYARD_INTERNAL_URL=f"http://127.0.0.1:{internal}",
        SANDYARD_RUNNER_LISTEN=f"127.0.0.1:{runner}",
        SANDYARD_RUNNER_URL=f"http://127.0.0.1:{runner}",
        SANDYARD_CONTROL_PLANE_URL=f"http://127.0.0.1:{api}",
        SANDYARD_JOURNAL="true",
    )
    with ExitStack() as stack:
        stack.callback(redis.stop)
        commands = (["api", "--port", str(api)], ["runner", "--on-exit", "remove"], ["proxy", "--port", str(proxy)])
        for command in commands:
            log = stack.enter_context((folder / f"{command[0]}.log").open("w"))
            part = subprocess.Popen([SANDYARD, *command], env=environment, stdout=log, stderr=log)
            stack.callback(part.wait, SECONDS)
            stack.callback(part.terminate)
        owner = Door(f"http://127.0.0.1:{proxy}", KEY)
        made = _as_soon_as_ready(owner)
        yield made
        remove_yard(owner, made)


def _as_soon_as_ready(owner: Door) -> Yard:
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            return new_yard(owner)
        except (BenchError, OSError):
            assert time.monotonic() < deadline
            time.sleep(0.1)  # three processes start; there is no event that says all of them have


def test_the_clock_moves_timers_of_another_process(yard: Yard) -> None:
    made = yard.door.ask("POST", "/api/sandbox", {"autoStopInterval": 15})
    yard.clock.advance(hours=1)
    assert yard.door.ask("GET", f"/api/sandbox/{made['id']}")["state"] == "stopped"
    yard.clock.release()


def test_a_sandbox_dies_on_its_runner_and_a_pull_fails_there(yard: Yard) -> None:
    made = yard.door.ask("POST", "/api/sandbox", {})
    yard.faults.add("die", on={"operation": "ExecuteCommand"})
    with pytest.raises(BenchError, match="Is the Sandbox started"):
        yard.door.ask("POST", f"/toolbox/{made['id']}/process/execute", {"command": "true"})
    history = yard.door.ask("GET", f"/_sandyard/sandboxes/{made['id']}")["history"]
    assert "first process was killed" in history[-1]["cause"]
    yard.faults.add("pull-fails", on={"label": "image=bad"}, message="manifest unknown")
    failed = yard.door.ask("POST", "/api/sandbox", {"labels": {"image": "bad"}})
    assert (failed["state"], failed["errorReason"]) == ("error", "manifest unknown")
    assert yard.faults.clear() == []


def test_statuses_drops_and_the_journal_are_the_proxys(yard: Yard) -> None:
    yard.faults.add("status", on={"operation": "listSandboxes"}, status=503, message="busy")
    with pytest.raises(BenchError, match="busy"):
        yard.door.ask("GET", "/api/sandbox")
    yard.faults.add("drop", on={"operation": "listSandboxes"})
    with pytest.raises(ConnectionError, match="without response"):
        yard.door.ask("GET", "/api/sandbox")
    assert [one["status"] for one in yard.journal(operation="listSandboxes")] == [503, None]
    yard.reset()
    assert yard.journal() == []
