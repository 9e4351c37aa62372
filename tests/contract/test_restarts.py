"""What outlives the process: keys, sandboxes and their files, finished commands; after SIGTERM and after kill -9."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.contract.running import COMBINATIONS, Instance, start
from tests.contract.toolbox import Toolbox, authorization
from tests.contract.wire_client import request

pytestmark = pytest.mark.sdk

RECORD_SECONDS = 10
LOCAL = COMBINATIONS["sqlite-memory-local"]


@contextmanager
def running(folder: Path) -> Iterator[Instance]:
    """Sandyard on this folder's data; ended by SIGTERM unless it is gone already."""
    instance = start(LOCAL, folder)
    try:
        yield instance
    finally:
        status = instance.stop() if instance.process.poll() is None else instance.process.returncode
    assert status in (0, 143, -signal.SIGKILL), instance.log[-3000:]


def used(instance: Instance) -> tuple[Toolbox, dict[str, Any]]:
    """A sandbox with a file and a finished command."""
    box = Toolbox.create(instance)
    box.session("work")
    ran = box.run("work", "echo precious > kept.txt; echo said; echo moaned >&2; (exit 5)")
    return box, ran


def sandbox_of(instance: Instance, box: Toolbox) -> dict[str, Any]:
    """The sandbox as the API tells it now."""
    found: dict[str, Any] = request(
        "GET", f"{instance.api_url}/sandbox/{box.id}", headers=authorization(instance)
    ).json()
    return found


def assert_usable_again(instance: Instance, box: Toolbox, ran: dict[str, Any]) -> None:
    """The sandbox starts, has its file, and its old command's record is readable."""
    records = box_records(instance, box, ran["cmdId"])
    assert records["exitCode"] == 5
    state = sandbox_of(instance, box)
    if state["state"] != "started":
        assert state["state"] == "stopped", state
        started = request("POST", f"{instance.api_url}/sandbox/{box.id}/start", headers=authorization(instance))
        assert started.status == 200, started
        state = started.json()
    again = Toolbox(instance, state, authorization(instance))
    answer = again.call("POST", "/process/execute", {"command": "cat kept.txt"})
    assert answer.status == 200, (state["state"], answer)
    assert answer.json()["result"] == "precious\n"
    again.delete()


def box_records(instance: Instance, box: Toolbox, command: str) -> dict[str, Any]:
    """What the database keeps of a finished command."""
    path = f"/_sandyard/sandboxes/{box.id}/sessions/work/commands/{command}"
    answer = request("GET", instance.origin + path, headers=authorization(instance))
    assert answer.status == 200, answer
    record: dict[str, Any] = answer.json()
    return record


def test_after_sigterm_the_sandboxes_are_stopped_and_keep_their_files(tmp_path: Path) -> None:
    with running(tmp_path) as first:
        box, ran = used(first)
        key = first.api_key
    assert processes_of(tmp_path) == []
    with running(tmp_path) as second:
        assert second.api_key == key
        assert_usable_again(second, box, ran)


def test_after_kill_9_the_next_start_cleans_up_and_goes_on(tmp_path: Path) -> None:
    with running(tmp_path) as first:
        box, ran = used(first)
        deadline = time.monotonic() + RECORD_SECONDS
        while box_records(first, box, ran["cmdId"]).get("exitCode") is None:  # records follow their commands
            assert time.monotonic() < deadline, "the finished command was never recorded"
            time.sleep(0.02)
        first.process.kill()
        first.process.wait()
    with running(tmp_path) as second:
        assert_usable_again(second, box, ran)
    assert processes_of(tmp_path) == []
    assert mounts_under(tmp_path) == []


def test_a_deleted_sandbox_s_commands_stay_readable(tmp_path: Path) -> None:
    with running(tmp_path) as instance:
        box, ran = used(instance)
        box.delete()  # answers while the sandbox is still going away
        deadline = time.monotonic() + RECORD_SECONDS
        while sandbox_of(instance, box)["state"] != "destroyed":
            assert time.monotonic() < deadline, "the sandbox was never destroyed"
            time.sleep(0.02)
        assert box_records(instance, box, ran["cmdId"])["exitCode"] == 5


def processes_of(folder: Path) -> list[str]:
    """Command lines of processes that name the folder or live in it."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environment = (entry / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue  # ended meanwhile, or not ours to read
        if str(folder) in command or str(folder) in environment:
            found.append(command)
    return found


def mounts_under(folder: Path) -> list[str]:
    """Mount points that were left."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if str(folder) in line]
