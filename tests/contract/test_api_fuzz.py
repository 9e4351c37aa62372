"""Every operation of the API that is answered, asked by generated requests: never a 500, never silence, never an answer
that a client cannot read.

Requests come from the API description: valid ones, broken ones, and valid ones about things that are there, in which
one value is what databases and parsers stumble over. An operation joins by being marked as implemented.
"""

import contextlib
import json
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

from sandyard_api.coverage.operations import IMPLEMENTED
from tests.contract.api_answers import Answers
from tests.contract.api_requests import Seasoned
from tests.contract.api_seeds import Seeds
from tests.contract.conftest import running
from tests.contract.running import CONTROL_PLANES, Instance
from tests.contract.toolbox import authorization

OPENAPI = Path(__file__).parents[3] / "shared" / "contract" / "openapi" / "api.json"
SHORT, LONG = 3, 300
"""Requests of each sort, for each operation."""
ANSWER_SECONDS = 30
"""Longer is a hang."""
NEVER_DONE = frozenset({"activateSnapshot", "recoverSandbox"})
"""Right after its deactivation a snapshot cannot be activated; no sandbox here is broken."""

pytestmark = [
    pytest.mark.skipif(not OPENAPI.exists(), reason="the API description is not beside this checkout"),
    pytest.mark.filterwarnings("ignore"),  # the generator's own
]


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def seeds(request: pytest.FixtureRequest) -> Iterator[Seeds]:
    """A control plane with things in it."""
    with running(CONTROL_PLANES[request.param]) as instance:
        yield Seeds(instance)


@pytest.fixture(scope="module")
def description() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(OPENAPI.read_text())
    return loaded


@pytest.fixture(scope="module")
def operations(description: dict[str, Any]) -> dict[str, Any]:
    """The description's operations, as generators of requests, by operation id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import schemathesis

        schema = schemathesis.openapi.from_dict(description)
        found: list[Any] = [result.ok() for result in schema.get_all_operations()]  # type: ignore[union-attr]
    return {operation.definition.raw["operationId"]: operation for operation in found}


@pytest.fixture(scope="module")
def asker(seeds: Seeds, description: dict[str, Any]) -> Iterator["Asker"]:
    with requests.Session() as session:
        yield Asker(seeds, Answers(description), session)


@pytest.mark.parametrize("operation_id", sorted(IMPLEMENTED))
def test_no_request_makes_an_operation_fail_or_fall_silent(
    asker: "Asker", operations: dict[str, Any], operation_id: str
) -> None:
    asker.ask_all(operations[operation_id], SHORT, generated=asker.on_sqlite)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("operation_id", sorted(IMPLEMENTED))
def test_no_request_of_thousands_does(asker: "Asker", operations: dict[str, Any], operation_id: str) -> None:
    answered = asker.ask_all(operations[operation_id], LONG)
    assert operation_id in NEVER_DONE or min(answered) < 300, answered


class Asker:
    """Sends requests and looks at the answers."""

    def __init__(self, seeds: Seeds, answers: Answers, session: requests.Session) -> None:
        self._seeds = seeds
        self._answers = answers
        self._session = session
        self._sandyard: Instance = seeds.sandyard
        self.on_sqlite = not seeds.sandyard.combination.postgres

    def ask_all(self, operation: Any, examples: int, *, generated: bool = True) -> Counter[int]:
        """So many requests of each sort, those of the generator only where it is said; the service goes on.

        Gives how often which status answered requests about things that are there.
        """
        from schemathesis import GenerationMode

        before = len(self._sandyard.log)
        if generated:
            self._ask(operation, operation.as_strategy(generation_mode=GenerationMode.POSITIVE), examples)
            # Where nothing about a request can be wrong there are no such requests.
            with contextlib.suppress(Unsatisfiable):
                self._ask(operation, operation.as_strategy(generation_mode=GenerationMode.NEGATIVE), examples)
        answered = self._ask_about_what_is_there(operation, examples)
        told = self._sandyard.log[before:]
        assert "Traceback" not in told, told[-3000:]
        assert self._session.get(f"{self._sandyard.api_url}/health/ready", timeout=ANSWER_SECONDS).status_code == 200
        return answered

    def _ask(self, operation: Any, cases: Any, examples: int) -> None:
        @several(examples)
        @given(case=cases)
        def ask(case: Any) -> None:
            sent = dict(case.as_transport_kwargs(base_url=self._sandyard.api_url))
            self._send(operation, sent.pop("method"), sent.pop("url"), **sent)

        ask()

    def _ask_about_what_is_there(self, operation: Any, examples: int) -> Counter[int]:
        method, answered = operation.method.upper(), Counter[int]()

        @several(examples)
        @given(data=st.data())
        def ask(data: st.DataObject) -> None:
            seasoned = Seasoned.draw(data.draw, operation.path, operation.definition.raw, self._seeds)
            sent: dict[str, Any] = {}
            if seasoned.body is not None:
                sent = {"data": seasoned.body, "headers": {"Content-Type": "application/json"}}
            status = self._send(operation, method, self._sandyard.api_url + seasoned.target, **sent)
            answered[status] += 1
            if status in (404, 409) or (status < 300 and seasoned.may_end):
                for kind in seasoned.kinds:
                    self._seeds.forget(kind)

        ask()
        return answered

    def _send(self, operation: Any, method: str, url: str, **sent: Any) -> int:
        headers = {**dict(sent.pop("headers", None) or {}), **authorization(self._sandyard)}
        response = self._session.request(
            method, url, headers=headers, timeout=ANSWER_SECONDS, allow_redirects=False, **sent
        )
        told = (response.status_code, response.text[:500], method, url[:500], sent)
        try:
            self._answers.check(
                operation.definition.raw,
                response.status_code,
                response.headers.get("content-type", ""),
                response.content,
            )
        except Exception as problem:
            raise AssertionError(f"{problem}\n{told}") from problem
        return response.status_code


def several(examples: int) -> settings:
    """Hypothesis settings: so many, the same in each run, nothing written."""
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
