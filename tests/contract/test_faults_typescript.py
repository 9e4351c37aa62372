"""Faults as the TypeScript SDK tells of them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.contract.bench import BenchClient
from tests.contract.programs import CLIENTS, bundle, run_program
from tests.contract.running import Instance

pytestmark = pytest.mark.sdk


@pytest.fixture(scope="module")
def saw(sandyard: Instance, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    options = ("--format=esm", "--platform=node", "--bundle", "--packages=external", "--alias:the-sdk=@daytona/sdk")
    program = bundle(CLIENTS / "typescript" / "faults.ts", Path("faults.mjs"), *options)
    bench = BenchClient.of_new_organization(sandyard)
    instance = replace(sandyard, api_key=bench.key)
    done = run_program(["node", program], instance, tmp_path_factory.mktemp("faults"))
    assert done.exit_code == 0, done
    assert bench.clear() == [], "every fault fired"
    made: dict[str, Any] = json.loads(done.text)
    return made


def test_statuses_have_the_class_of_the_sdk(saw: dict[str, Any]) -> None:
    assert saw["create"][0] == "DaytonaConflictError"
    assert "ordered conflict" in saw["create"][1]
    assert saw["status"][0] == "DaytonaRateLimitError"


def test_a_connection_that_breaks_is_an_error_and_the_work_was_done_or_not(saw: dict[str, Any]) -> None:
    for fault in ("drop", "dropAfter", "cut"):
        assert saw[fault][0].startswith("Daytona"), saw[fault]
    assert saw["work"] == "done\n"


def test_streams_are_sliced_stalled_and_closed(saw: dict[str, Any]) -> None:
    assert saw["slice"][:2] == ["nothing was thrown", '"pieces\\n"']
    assert saw["stall"][:2] == ["nothing was thrown", '"late\\n"']
    assert "never" not in saw["close"][1]


def test_a_sandbox_that_died_refuses_and_is_stopped(saw: dict[str, Any]) -> None:
    assert saw["die"][0].startswith("Daytona")
    assert saw["state"] == "stopped"
