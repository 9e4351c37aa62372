"""Every implemented operation of the toolbox, asked by generated requests: never a 5xx, never silence, always JSON.

An operation joins by being marked as implemented in the daemon's table. The requests come from the toolbox's OpenAPI
description, valid ones and broken ones; each operation has a sandbox of its own, since some of them change a lot.
"""

import contextlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable

from sandyard_daemon.wire.operations import OPERATIONS
from tests.contract.running import Instance
from tests.contract.toolbox import Toolbox, authorization

OPENAPI = Path(__file__).parents[3] / "shared" / "contract" / "openapi" / "toolbox.json"
EXAMPLES = 15
ANSWER_SECONDS = 30
"""Longer is a hang."""

pytestmark = [
    pytest.mark.skipif(not OPENAPI.exists(), reason="the toolbox's OpenAPI description is not beside this checkout"),
    pytest.mark.filterwarnings("ignore"),  # the generator's own
]

IMPLEMENTED = sorted(one.operation_id for one in OPERATIONS if one.implemented)


@pytest.fixture(scope="module")
def operations() -> dict[str, Any]:
    """The description's operations, as generators of requests, by operation id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import schemathesis

        schema = schemathesis.openapi.from_dict(json.loads(OPENAPI.read_text()))
        found: list[Any] = [result.ok() for result in schema.get_all_operations()]  # type: ignore[union-attr]
    return {operation.definition.raw["operationId"]: operation for operation in found}


@pytest.fixture
def toolbox(sandyard: Instance) -> Iterator[Toolbox]:
    """A sandbox of this test's own."""
    made = Toolbox.create(sandyard)
    yield made
    made.delete()


@pytest.mark.parametrize("operation_id", IMPLEMENTED)
def test_no_request_makes_an_operation_fail_or_fall_silent(
    sandyard: Instance, toolbox: Toolbox, operations: dict[str, Any], operation_id: str
) -> None:
    if operation_id not in operations:
        pytest.skip("the description does not have it")
    from schemathesis import GenerationMode

    strategy = operations[operation_id].as_strategy
    ask_all(toolbox, strategy(generation_mode=GenerationMode.POSITIVE))
    # Where nothing about a request can be wrong there are no such requests.
    with contextlib.suppress(Unsatisfiable):
        ask_all(toolbox, strategy(generation_mode=GenerationMode.NEGATIVE))
    assert toolbox.call("GET", "/version").status == 200, "the daemon is not what it was"


def ask_all(toolbox: Toolbox, cases: Any) -> None:
    """Send some of these requests."""

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def ask(case: Any) -> None:
        check(toolbox, case)

    ask()


def check(toolbox: Toolbox, case: Any) -> None:
    """Send one request and look at its answer."""
    if case.query:
        case.query.pop("follow", None)  # a followed log is silent until its command says something
    headers = authorization(toolbox.sandyard)
    response = case.call(base_url=toolbox.base, headers=headers, timeout=ANSWER_SECONDS, allow_redirects=False)
    told = (response.status_code, response.text[:500], case.as_curl_command())
    assert response.status_code < 500, told
    if response.status_code >= 400:
        body = response.json()
        assert body["statusCode"] == response.status_code, told
        assert body["message"], told
        assert body["source"] in ("DAYTONA_DAEMON", "DAYTONA_PROXY"), told
