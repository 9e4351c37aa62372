"""Faults as the Go SDK tells of them: by status, without one where no answer came, and never by trying again."""

from dataclasses import replace
from typing import Any

import pytest

from tests.contract.bench import BenchClient
from tests.contract.programs import GO_RELEASES, go_flow
from tests.contract.running import Instance

pytestmark = pytest.mark.sdk


@pytest.fixture(scope="module", params=GO_RELEASES)
def saw(sandyard: Instance, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    bench = BenchClient.of_new_organization(sandyard)
    made = go_flow(request.param, "faults", replace(sandyard, api_key=bench.key), tmp_path_factory.mktemp("faults"))
    assert bench.clear() == [], "every fault fired"
    return made


def test_statuses_have_the_class_of_the_sdk_and_the_message(saw: dict[str, Any]) -> None:
    assert saw["create"] == ["DaytonaError", "ordered conflict", 409]
    assert saw["limit"] == ["DaytonaRateLimitError", "ordered limit", 429]
    assert saw["absence"] == ["DaytonaNotFoundError", "ordered absence", 404]
    assert saw["pause"] == ["DaytonaError", "ordered pause", 503]


def test_a_connection_that_breaks_is_an_error_without_a_status_and_nothing_is_done_twice(saw: dict[str, Any]) -> None:
    for fault in ("drop", "dropAfter"):
        kind, message, status = saw[fault]
        assert (kind, status) == ("DaytonaError", 0)
        assert message.endswith("EOF")
    assert saw["work"] == "done\n"
    assert saw["cut"] == ["DaytonaError", "unexpected EOF", 200]


def test_a_stream_that_is_cut_is_an_error_after_just_those_bytes(saw: dict[str, Any]) -> None:
    shown, error, _ = saw["streamCut"]
    assert shown == "aaaaabb"
    assert "close 1006" in error[1]
    shown, error, _ = saw["streamClosed"]
    assert shown == ""
    assert "close 1011" in error[1]
    assert "ordered end" in error[1]


def test_a_sliced_or_stalled_stream_is_whole(saw: dict[str, Any]) -> None:
    assert saw["slice"][:2] == ["pieces\n", ["nothing failed", "", 0]]
    assert saw["stall"][:2] == ["late\n", ["nothing failed", "", 0]]
    assert saw["stall"][2] >= 0.5


def test_a_sandbox_that_died_refuses_and_is_stopped(saw: dict[str, Any]) -> None:
    assert saw["die"][0] == "DaytonaError"
    assert saw["die"][2] in (400, 502)
    assert saw["state"] == "stopped"
