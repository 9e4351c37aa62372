"""The pytest plugin with sandboxes in containers: what it orders, moves and tells is the same there."""

from pathlib import Path

import pytest

from tests.engine import need_engine
from tests.sandyard.test_pytest_plugin import PLAIN, assert_nothing_is_left, run_pytest

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

POWERS = """
import time, pytest
from sandyard.testing.client import BenchError

def create(yard, becomes="started", **body):
    return wait_for(yard, yard.door.ask("POST", "/api/sandbox", body), becomes)

def start(yard, box):
    return wait_for(yard, yard.door.ask("POST", f"/api/sandbox/{box['id']}/start"), "started")

def wait_for(yard, box, becomes):
    # The API answers after a while with whatever state there is then.
    deadline = time.monotonic() + 120
    while (told := yard.door.ask("GET", f"/api/sandbox/{box['id']}"))["state"] != becomes:
        assert time.monotonic() < deadline, told
        time.sleep(0.1)
    return told

def state(yard, box):
    return yard.door.ask("GET", f"/api/sandbox/{box['id']}")["state"]

def run(yard, box, command):
    return yard.door.ask("POST", f"/toolbox/{box['id']}/process/execute", {"command": command})["result"]

def test_die_and_reset(sandyard, sandyard_faults):
    box = create(sandyard, labels={"team": "a"})
    sandyard_faults.add("die", on={"operation": "ExecuteCommand", "label": "team=a", "nth": 2})
    assert run(sandyard, box, "echo one") == "one\\n"
    with pytest.raises(BenchError):
        run(sandyard, box, "echo two")
    assert state(sandyard, box) == "stopped"
    start(sandyard, box)
    assert run(sandyard, box, "echo three") == "three\\n"
    sandyard.reset()
    assert sandyard.door.ask("GET", "/api/sandbox")["items"] == []

def test_memory_runner_hang_and_pull(sandyard, sandyard_faults):
    box = create(sandyard)
    sandyard_faults.add("out-of-memory", on={"operation": "ExecuteCommand"})
    with pytest.raises(BenchError):
        run(sandyard, box, "true")
    assert "out of memory" in str(sandyard.door.ask("GET", f"/_sandyard/sandboxes/{box['id']}"))
    start(sandyard, box)
    sandyard_faults.add("runner-gone", on={"operation": "ExecuteCommand"})
    with pytest.raises(BenchError, match="runner"):
        run(sandyard, box, "true")
    sandyard_faults.add("hang", on={"operation": "ExecuteCommand"}, seconds=0.2)
    with pytest.raises(OSError):
        run(sandyard, box, "true")
    assert run(sandyard, box, "echo well") == "well\\n"
    sandyard_faults.add("pull-fails", on={"label": "image=none"}, message="the registry is away")
    failed = create(sandyard, becomes="error", labels={"image": "none"})
    assert failed["errorReason"] == "the registry is away"
    assert sandyard_faults.clear() == []

def test_clock_and_journal(sandyard, sandyard_clock):
    sandyard_clock.freeze()
    box = create(sandyard, autoStopInterval=15, autoArchiveInterval=60)
    sandyard_clock.advance(minutes=14)
    assert state(sandyard, box) == "started"
    sandyard_clock.advance(minutes=2)
    assert state(sandyard, box) == "stopped"
    sandyard_clock.advance(days=1)
    assert state(sandyard, box) == "archived"
    sandyard_clock.release()
    sandyard.door.ask("POST", f"/api/sandbox/{box['id']}/start")
    (record,) = sandyard.journal(operation="createSandbox")
    assert (record["status"], record["sandbox"]) == (200, box["id"])
"""


def test_faults_clock_reset_and_journal_hold_for_containers(tmp_path: Path) -> None:
    need_engine()
    done = run_pytest(tmp_path / "run", PLAIN + POWERS, "--sandyard-runtime", "docker", seconds=500)
    assert "3 passed" in done.stdout, done.stdout + done.stderr
    assert "never fired" not in done.stdout
    assert_nothing_is_left(tmp_path / "run")
