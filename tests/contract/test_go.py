"""The Go SDK, in the releases that can be had: sessions with their logs, and what it makes of errors."""

from pathlib import Path
from typing import Any

import pytest

from tests.contract.programs import GO_LACKS, GO_RELEASES, go_flow
from tests.contract.running import Instance
from tests.contract.toolbox import Toolbox

pytestmark = pytest.mark.sdk


@pytest.fixture(scope="module", params=GO_RELEASES)
def saw(sandyard: Instance, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the flow of sessions saw, with the name of the release."""
    box = Toolbox.create(sandyard)
    try:
        made = go_flow(request.param, "sessions", sandyard, tmp_path_factory.mktemp("go"), box.id)
    finally:
        box.delete()
    return made | {"name": request.param}


def test_a_blocking_command_gives_streams_and_exit_code_and_its_log(saw: dict[str, Any]) -> None:
    assert saw["sync"] == [4, "so\n", "no\n"]
    assert saw["kept"] == "/usr\nyes\n"
    if saw["name"] == "0.148":  # it hands on the text as it comes: marked, as for every SDK before 0.167
        assert saw["log"] == "\x01\x01\x01so\n\x02\x02\x02no\n"
    else:
        assert saw["log"][:2] == ["so\n", "no\n"]
        assert sorted(saw["log"][2].splitlines()) == ["no", "so"]


def test_following_gives_each_line_whole_when_it_was_written(saw: dict[str, Any]) -> None:
    assert saw["exitCodeAtOnce"] is False
    texts = [each["text"] for each in saw["followed"]]
    for number, two in enumerate((texts[:2], texts[2:4], texts[4:6]), start=1):
        assert sorted(two) == [f"err{number}\n", f"out{number}\n"], texts
    streams = {"out": "", "err": ""}
    for each in saw["followed"]:
        streams[each["stream"]] += each["text"]
    assert streams == {"out": "out1\nout2\nout3\na€\nlast", "err": "err1\nerr2\nerr3\n"}
    assert saw["late"] == [streams["out"], streams["err"]]
    assert saw["status"] == [0, True], "its lines were not heard while it waited for that"


def test_many_lines_are_all_there(saw: dict[str, Any]) -> None:
    assert saw["loud"] == [200_000, "1", "200000", 1000]


def test_sessions_are_listed_and_deleted_with_what_they_run(saw: dict[str, Any]) -> None:
    assert {"work", "loud"} <= set(saw["listed"])
    assert saw["session"] == "loud"
    assert saw["duplicate"] == ["DaytonaError", "session already exists: work", 409]
    for absent in ("deletedAgain", "unknownSession", "unknownCommand"):
        assert saw[absent][0] == "DaytonaNotFoundError", absent
    assert "bad handshake" in saw["unknownFollowed"][1]


def test_the_entrypoint_has_a_session_whose_log_ends_with_the_sandbox(saw: dict[str, Any]) -> None:
    if saw["name"] == "0.148":
        assert saw["entrypoint"] == saw["entrypointLogs"] == GO_LACKS
    else:
        assert saw["entrypoint"] == [True, 1]
        assert saw["entrypointLogs"][0] == "nothing failed"


@pytest.mark.parametrize("release", GO_RELEASES)
def test_errors_have_class_message_and_status(
    sandyard: Instance, shared_toolbox: Toolbox, folder: Path, release: str
) -> None:
    told = go_flow(release, "errors", sandyard, folder, shared_toolbox.id)
    missing = "Sandbox with ID or name no-such-sandbox not found"
    assert told["unknown"] == ["DaytonaNotFoundError", missing, 404]
    assert told["unknownName"][1] == "Sandbox with ID or name with a/slash not found"
    assert told["unknownTarget"][0] == "DaytonaNotFoundError"
    assert told["wrongKey"] == told["wrongKeyCreate"] == ["DaytonaError", "Invalid credentials", 401]
    statuses = {"unknownSnapshot": 400, "badPage": 400, "emptyCommand": 400, "badSession": 400, "reserved": 400}
    assert {refusal: told[refusal][2] for refusal in statuses} == statuses
    assert "must not be greater than 200" in told["badPage"][1]
    assert told["noDesktop"][2] == 501
    assert told["badCwd"][0] != 0
    assert "/no/such/place" in told["badCwd"][1]
    assert told["nowhere"][2] == told["limited"][2] == 0, "no answer, no status"
    assert "connection refused" in told["nowhere"][1]
    assert "deadline exceeded" in told["limited"][1]
