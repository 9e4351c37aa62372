"""What outlives the process: keys, sandboxes and their files, finished commands; after SIGTERM and after kill -9."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.contract.running import COMBINATIONS, Instance, start
from tests.contract.toolbox import Toolbox, authorization
from tests.contract.wire_client import request
from tests.daemon.conftest import eventually

pytestmark = pytest.mark.sdk

SECONDS = 60
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
    """A sandbox with a file and a finished command that is on record: records follow their commands."""
    box = Toolbox.create(instance)
    box.session("work")
    ran = box.run("work", "echo precious > kept.txt; echo said; echo moaned >&2; (exit 5)")
    eventually(lambda: box_records(instance, box, ran["cmdId"]).get("exitCode") is not None, SECONDS)
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
    # Local ones end with Sandyard; what it finds of them at its start is told a moment after it is ready.
    again = Toolbox(instance, sandbox_of(instance, box), authorization(instance))
    again.wait_for("stopped")
    started = again.api("POST", f"/sandbox/{box.id}/start")
    assert started.status == 200, started
    again = Toolbox(instance, again.wait_for("started"), authorization(instance))
    answer = again.call("POST", "/process/execute", {"command": "cat kept.txt"})
    assert answer.status == 200, answer
    assert answer.json()["result"] == "precious\n"
    again.delete()


def box_records(instance: Instance, box: Toolbox, command: str) -> dict[str, Any]:
    """What the database keeps of a command; empty where it has nothing yet."""
    path = f"/_sandyard/sandboxes/{box.id}/sessions/work/commands/{command}"
    answer = request("GET", instance.origin + path, headers=authorization(instance))
    assert answer.status in (200, 404), answer
    record: dict[str, Any] = answer.json() if answer.status == 200 else {}
    return record


def test_after_sigterm_the_sandboxes_are_stopped_and_keep_their_files(tmp_path: Path) -> None:
    with running(tmp_path) as first:
        box, ran = used(first)
        key = first.api_key
    eventually(lambda: processes_of(tmp_path) == [])
    with running(tmp_path) as second:
        assert second.api_key == key
        assert_usable_again(second, box, ran)


def test_after_kill_9_the_next_start_cleans_up_and_goes_on(tmp_path: Path) -> None:
    with running(tmp_path) as first:
        box, ran = used(first)
        first.process.kill()
        first.process.wait()
    with running(tmp_path) as second:
        assert_usable_again(second, box, ran)
    eventually(lambda: processes_of(tmp_path) == [])
    eventually(lambda: mounts_under(tmp_path) == [])


def test_a_deleted_sandbox_s_commands_stay_readable(tmp_path: Path) -> None:
    with running(tmp_path) as instance:
        box, ran = used(instance)
        box.delete()  # answers while the sandbox is still going away
        box.wait_for("destroyed")
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
