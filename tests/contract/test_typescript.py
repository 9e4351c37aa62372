"""The TypeScript SDK on Node under both names of its package."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.contract.programs import CLIENTS, bundle, run_program
from tests.contract.running import Instance

pytestmark = pytest.mark.sdk

NAMES = ("@daytonaio/sdk", "@daytona/sdk")
EXIT_SECONDS = 20.0
"""A client that cannot connect to the event socket keeps Node alive for over a minute after the program's last line."""


@pytest.fixture(scope="session", params=NAMES)
def saw(sandyard: Instance, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the flow printed with the package of this name, and how long the process outlived it."""
    source = CLIENTS / "typescript" / "flow.ts"
    target = Path("flow-" + request.param.strip("@").replace("/", "-") + ".mjs")
    options = ("--format=esm", "--platform=node", "--bundle", "--packages=external", f"--alias:the-sdk={request.param}")
    done = run_program(["node", bundle(source, target, *options)], sandyard, tmp_path_factory.mktemp("node"))
    assert done.exit_code == 0, done
    made: dict[str, Any] = json.loads(done.text)
    made["lingered"] = done.seconds - done.when('"state"')
    return made


def test_a_created_sandbox_is_listed_by_label_and_found_by_name(saw: dict[str, Any]) -> None:
    assert saw["state"] == "started"
    assert saw["listed"] is True
    assert saw["byName"] is True


def test_exec_and_a_blocking_session_command_give_output_and_exit_codes(saw: dict[str, Any]) -> None:
    assert saw["exec"] == [3, "one\nhi there\n"]
    assert saw["sync"] == [4, "so\n", "no\n"]


def test_following_gives_each_stream_whole_while_the_command_runs(saw: dict[str, Any]) -> None:
    streams = {"out": "", "err": ""}
    for stream, chunk in saw["followed"]:
        streams[stream] += chunk
    assert streams == {"out": "out1\nout2\nout3\n", "err": "err1\nerr2\nerr3\n"}
    assert saw["exit"] == 0, "its first lines were not heard while it waited for that"
    assert saw["logs"] == ["out1\nout2\nout3\n", "err1\nerr2\nerr3\n"]
    assert ["work", 2] in saw["sessions"]


def test_errors_have_the_class_of_their_status(saw: dict[str, Any]) -> None:
    assert saw["unknown"][0] == "DaytonaNotFoundError"
    assert "no-such-sandbox" in saw["unknown"][1]
    assert saw["unknownSession"][0] == "DaytonaNotFoundError"
    assert saw["duplicate"][0] == "DaytonaConflictError"
    assert saw["wrongKey"][0] == "DaytonaAuthenticationError"


def test_stop_and_start_are_awaited(saw: dict[str, Any]) -> None:
    assert saw["stopped"] == "stopped"
    assert saw["started"] == "started"


def test_the_process_ends_with_its_program(saw: dict[str, Any]) -> None:
    assert saw["lingered"] < EXIT_SECONDS
