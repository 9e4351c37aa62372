"""The same flow by the newest Python SDK and by releases from 0.27 on, each in an interpreter of its own."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.contract.programs import CLIENTS, NEWEST_PYTHON_SDK, python_with_sdk, run_program
from tests.contract.running import Instance

pytestmark = pytest.mark.sdk

RELEASES = (NEWEST_PYTHON_SDK, "0.166.0", "0.143.0", "0.103.0", "0.27.1")
STREAMED = {"out": "out1\nout2\nout3\n", "err": "err1\nerr2\nerr3\n"}


@pytest.fixture(scope="session", params=RELEASES)
def saw(sandyard: Instance, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the flow printed with this release."""
    python = python_with_sdk(request.param)
    done = run_program([python, CLIENTS / "python" / "flow.py"], sandyard, tmp_path_factory.mktemp("python"))
    assert done.exit_code == 0, done
    made: dict[str, Any] = json.loads(done.text)
    return made


def test_a_created_sandbox_is_started_listed_by_its_labels_and_found_by_id(saw: dict[str, Any]) -> None:
    assert saw["state"] == "started"
    assert saw["listed"] == [saw["id"]]
    assert saw["got"] == saw["id"]
    assert saw["root"].startswith("/")


def test_exec_gives_both_streams_in_order_with_the_exit_code_and_environment(saw: dict[str, Any]) -> None:
    assert saw["exec"] == [3, "one\ntwo\nhi there\n"] or saw["exec"] == [3, "one\ntwo\nhi there"]
    assert saw["exec env"].strip() == "ybin"
    assert saw.get("code", "42").strip() == "42"


def test_a_session_keeps_its_state_between_commands_and_their_streams_apart(saw: dict[str, Any]) -> None:
    assert saw["sync"] == [0, "so\n", "no\n"]
    assert saw["kept state"] == [1, "5 /tmp\n"]
    assert saw["sessions"] == [["work", 4]] or ["work", 4] in saw["sessions"]


@pytest.mark.parametrize("spelling", ["run_async", "var_async"])
def test_following_gives_each_stream_whole_while_the_command_runs(saw: dict[str, Any], spelling: str) -> None:
    seen = saw[spelling]
    assert _joined(seen) == STREAMED
    assert saw[f"{spelling} exit"] == 0, "its first lines were not heard while it waited for that"
    assert saw[f"{spelling} logs"] == [STREAMED["out"], STREAMED["err"]]


@pytest.mark.parametrize("spelling", ["run_async", "var_async"])
def test_a_late_follower_gets_the_whole_log_and_its_end(saw: dict[str, Any], spelling: str) -> None:
    assert _joined(saw[f"{spelling} again"]) == STREAMED


def test_errors_carry_the_server_text(saw: dict[str, Any]) -> None:
    assert "no-such-sandbox" in saw["unknown"][1]
    for refusal in ("duplicate", "unknown", "unknown session", "unknown command", "deleted session"):
        assert saw[refusal][0].startswith("Daytona"), refusal


def test_files_survive_stop_and_start(saw: dict[str, Any]) -> None:
    assert saw["stopped"] == "stopped"
    assert saw["after restart"].strip() == "kept"
    assert "3000-" in saw["preview"]


@pytest.mark.parametrize("release", RELEASES)
def test_the_asynchronous_client_follows_two_commands_at_once(sandyard: Instance, folder: Path, release: str) -> None:
    done = run_program([python_with_sdk(release), CLIENTS / "python" / "async_flow.py"], sandyard, folder)
    assert done.exit_code == 0, done
    saw = json.loads(done.text)
    for followed, name in zip(saw["followed"], ("apple", "pear"), strict=True):
        assert followed["out"] == "".join(f"{name}{i}\n" for i in (1, 2, 3))
        assert followed["err"] == "".join(f"{name}-err{i}\n" for i in (1, 2, 3))
        assert followed["exit"] == 0
    assert saw["exit"] == 7


def _joined(seen: list[list[Any]]) -> dict[str, str]:
    joined = {"out": "", "err": ""}
    for stream, chunk in seen:
        joined[stream] += chunk
    return joined
