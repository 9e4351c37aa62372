"""Pause, resize, archive, recover and fork, as the newest SDKs do them, on real sandboxes."""

import json
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("daytona", reason="the newest Python SDK is a development dependency")

from daytona import CreateSandboxFromSnapshotParams, Daytona, Resources, Sandbox
from daytona.common.errors import DaytonaBadRequestError, DaytonaError

from tests.contract.programs import (
    CLIENTS,
    GO_LACKS,
    GO_RELEASES,
    NEWEST_PYTHON_SDK,
    bundle,
    go_flow,
    python_with_sdk,
    run_program,
)
from tests.contract.python_client import client
from tests.contract.running import Instance
from tests.contract.toolbox import Toolbox, authorization
from tests.contract.wire_client import request
from tests.daemon.conftest import eventually

pytestmark = [pytest.mark.sdk, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def daytona(sandyard: Instance) -> Iterator[Daytona]:
    with client(sandyard, sandyard.api_key) as opened:
        yield opened


@pytest.fixture
def sandbox(daytona: Daytona) -> Iterator[Sandbox]:
    made = daytona.create(CreateSandboxFromSnapshotParams(labels={"part": "lifecycle"}))
    yield made
    made.delete()


def run(sandbox: Sandbox, command: str) -> str:
    done = sandbox.process.exec(command)
    assert done.exit_code == 0, done
    return str(done.result)


def can(sandyard: Instance, name: str) -> bool:
    """Whether the capability table says so."""
    answer = request("GET", f"{sandyard.origin}/_sandyard/capabilities", headers=authorization(sandyard))
    return bool(answer.json()["runners"][0]["capabilities"][name]["enforcement"] != "refused")


def test_a_paused_sandbox_keeps_its_processes_and_start_lets_them_run_on(daytona: Daytona, sandbox: Sandbox) -> None:
    run(sandbox, "sh -c 'sleep 300 & echo $! > ~/pid' > /dev/null 2>&1")
    sandbox.pause()
    assert sandbox.state == "paused"
    with pytest.raises(DaytonaBadRequestError, match="paused"):
        sandbox.process.exec("true")
    with pytest.raises(DaytonaBadRequestError, match="must be in started state to pause"):
        sandbox.pause()
    sandbox.start()
    assert sandbox.state == "started"
    assert run(sandbox, "kill -0 $(cat ~/pid) && echo alive") == "alive\n"
    sandbox.pause()
    sandbox.stop()
    assert daytona.get(sandbox.id).state == "stopped"


def test_a_session_command_goes_on_after_a_pause(sandyard: Instance) -> None:
    toolbox = Toolbox.create(sandyard)
    try:
        toolbox.call("POST", "/process/session", {"sessionId": "s"})
        command = "for i in 1 2 3 4 5 6; do echo line$i; sleep 0.3; done"
        body = {"command": command, "runAsync": True}
        started = toolbox.call("POST", "/process/session/s/exec", body).json()
        assert toolbox.api("POST", f"/sandbox/{toolbox.id}/pause").json()["state"] == "pausing"
        toolbox.wait_for("paused")
        assert toolbox.call("GET", "/process/session").status == 400
        assert toolbox.api("POST", f"/sandbox/{toolbox.id}/start").status == 200
        toolbox.wait_for("started")
        path = f"/process/session/s/command/{started['cmdId']}"
        eventually(lambda: toolbox.exit_code("s", started["cmdId"]) is not None, 60)
        assert toolbox.exit_code("s", started["cmdId"]) == 0
        assert toolbox.call("GET", f"{path}/logs").body.decode().count("line") == 6
    finally:
        toolbox.delete()


def test_resize_changes_the_limits_or_says_why_not(sandyard: Instance, daytona: Daytona, sandbox: Sandbox) -> None:
    if not can(sandyard, "resize"):
        with pytest.raises(DaytonaError, match="not supported for this sandbox"):
            sandbox.resize(Resources(cpu=2))
        return
    sandbox.resize(Resources(cpu=2, memory=2))
    assert daytona.get(sandbox.id).state == "started"
    again = daytona.get(sandbox.id)
    assert (again.cpu, again.memory) == (2, 2)
    assert run(sandbox, "echo works") == "works\n"
    with pytest.raises(DaytonaBadRequestError, match="stopped sandbox"):
        sandbox.resize(Resources(disk=10))
    sandbox.stop()
    sandbox.resize(Resources(cpu=1, memory=1, disk=10))
    again = daytona.get(sandbox.id)
    assert (again.state, again.cpu, again.memory, again.disk) == ("stopped", 1, 1, 10)
    sandbox.start()
    assert run(sandbox, "echo works") == "works\n"


def test_an_archived_sandbox_starts_again_with_its_files(sandyard: Instance, daytona: Daytona) -> None:
    toolbox = Toolbox.create(sandyard)
    sandbox = daytona.get(toolbox.id)
    try:
        run(sandbox, 'echo kept > "$HOME/note"; chmod 640 "$HOME/note"; ln -s note "$HOME/link"')
        with pytest.raises(DaytonaBadRequestError, match="not stopped"):
            sandbox.archive()
        for _ in range(2):
            sandbox.stop()
            sandbox.archive()
            assert sandbox.state in ("archiving", "archived")
            told = toolbox.wait_for("archived")
            assert "runnerId" not in told
            with pytest.raises(DaytonaBadRequestError):
                sandbox.process.exec("true")
            sandbox.start()
            assert sandbox.state == "started"
            assert run(sandbox, 'cat "$HOME/link"; stat -c %a "$HOME/note"') == "kept\n640\n"
        sandbox.stop()
        sandbox.archive()
        toolbox.wait_for("archived")
    finally:
        sandbox.delete()
    toolbox.wait_for("destroyed")


def test_a_fork_has_the_files_of_its_parent_and_goes_its_own_way(daytona: Daytona, sandbox: Sandbox) -> None:
    run(sandbox, 'echo one > "$HOME/note"')
    fork = sandbox.fork(name=f"fork-of-{sandbox.id}")
    try:
        assert fork.state == "started"
        assert fork.labels["part"] == "lifecycle"
        assert run(fork, 'cat "$HOME/note"') == "one\n"
        run(fork, 'echo two > "$HOME/note"')
        assert run(sandbox, 'cat "$HOME/note"') == "one\n"
        grandchild = fork.fork()
        try:
            assert run(grandchild, 'cat "$HOME/note"') == "two\n"
            with pytest.raises(DaytonaBadRequestError, match="fork children"):
                fork.delete()
        finally:
            grandchild.delete()
        sandbox.stop()
        with pytest.raises(DaytonaBadRequestError, match="in started state"):
            sandbox.fork()
    finally:
        fork.delete()
    assert daytona.get(sandbox.id).state == "stopped"


def test_recover_of_what_did_not_fail_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(DaytonaBadRequestError, match="must be in error state"):
        sandbox.recover()


def test_a_sandbox_whose_first_process_ends_says_so_and_starts_again(sandyard: Instance, daytona: Daytona) -> None:
    toolbox = Toolbox.create(sandyard)
    sandbox = daytona.get(toolbox.id)
    try:
        if sandyard.combination.runtime == "docker":
            docker = pytest.importorskip("docker")
            engine = docker.from_env()
            engine.containers.get(f"sandyard-{sandbox.id}").kill()
            engine.close()
        else:
            record = next(sandyard.folder.glob(f"data/sandboxes/{sandbox.id}/run.json"))

            os.kill(json.loads(record.read_text())["first"]["pid"], signal.SIGKILL)
        toolbox.wait_for("stopped")
        answer = request("GET", f"{sandyard.origin}/_sandyard/sandboxes/{sandbox.id}", headers=authorization(sandyard))
        assert any(word in answer.json()["history"][-1]["cause"] for word in ("signal", "killed"))
        sandbox.start()
        assert run(sandbox, "echo again") == "again\n"
    finally:
        sandbox.delete()


def test_the_asynchronous_client_sees_the_same(sandyard: Instance, folder: Path) -> None:
    program = CLIENTS / "python" / "lifecycle.py"
    done = run_program([python_with_sdk(NEWEST_PYTHON_SDK), program], sandyard, folder)
    check_flow(sandyard, done)


def test_the_typescript_client_sees_the_same(sandyard: Instance, folder: Path) -> None:
    options = ("--format=esm", "--platform=node", "--bundle", "--packages=external")
    source = bundle(CLIENTS / "typescript" / "lifecycle.ts", Path("lifecycle.mjs"), *options)
    check_flow(sandyard, run_program(["node", source], sandyard, folder))


def check_flow(sandyard: Instance, done: Any) -> None:
    assert done.exit_code == 0, done
    saw = json.loads(done.text)
    # Its client does not wait for that, and its image goes last.
    Toolbox(sandyard, {"id": saw["id"]}, authorization(sandyard)).wait_for("destroyed")
    assert saw["paused"] == "paused"
    assert saw["resumed"] == "started"
    assert saw["fork"] == ["started", "kept\n"]
    assert saw["archived"] == "archived"
    assert saw["restored"] == ["started", "kept\n"]
    assert saw["resize"] in ("resized", "refused")
    assert "error state" in saw["recover"]


@pytest.mark.parametrize("release", GO_RELEASES)
def test_the_go_client_creates_finds_changes_and_archives(sandyard: Instance, folder: Path, release: str) -> None:
    saw = go_flow(release, "lifecycle", sandyard, folder, f"go-{uuid.uuid4().hex[:8]}")
    Toolbox(sandyard, {"id": saw["id"]}, authorization(sandyard)).wait_for("destroyed")
    assert saw["created"] == ["started", True, 32, 33]
    assert saw["environment"] == "hi there\n"
    assert saw["byName"] is True
    assert (saw["taken"][0], saw["taken"][2]) == ("DaytonaError", 409)
    assert saw["listed"] == [saw["id"]]
    assert saw["relabelled"] == [[], [saw["id"]]]
    assert saw["intervals"] == [60, -1]
    assert saw["badInterval"][2] == 400
    assert (saw["preview"], saw["previewWithout"]) == ("served", True)
    assert saw["archiveEarly"][:2] == ["DaytonaError", "Sandbox is not stopped"]
    assert (saw["stopped"], saw["archived"], saw["again"]) == ("stopped", "archived", "started")
    assert saw["whileStopped"][2] == 400
    assert saw["restored"] == ["started", "kept\n"]
    can_close = can(sandyard, "network_block_all")
    assert saw["closed"] == (True if can_close else 422)
    assert saw["ephemeral"] == ["started", 0]
    # An ephemeral sandbox is destroyed by its stop, on the platform too; these releases wait for `stopped` alone.
    assert saw["ephemeralStop"] in ("DaytonaTimeoutError", "DaytonaError"), "the latter when it was asking just then"
    assert saw["ephemeralGone"] is True
    if release == "0.148":
        assert saw["findOne"] is True
        assert saw["findNone"][0] == "DaytonaNotFoundError"
        assert saw["fork"] == saw["network"] == saw["signed"] == GO_LACKS
    else:
        assert saw["findOne"] == saw["findNone"] == GO_LACKS
        assert saw["fork"] == ["started", "kept\n", True]
        assert saw["network"] == ([0, True, False] if can_close else [422, False, False])
        assert saw["signed"] == ["served", False]
