"""Each quirk bites the newest Python SDK as its source says, and none is there unasked."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

daytona_sdk = pytest.importorskip("daytona", reason="the newest Python SDK is a development dependency")

from daytona import Daytona, Sandbox, SessionExecuteRequest  # noqa: E402
from daytona.common.errors import DaytonaBadGatewayError, DaytonaBadRequestError, DaytonaError  # noqa: E402

from tests.contract.bench import BenchClient  # noqa: E402
from tests.contract.python_client import client  # noqa: E402
from tests.contract.running import Instance  # noqa: E402
from tests.contract.wire_client import request  # noqa: E402

pytestmark = [pytest.mark.sdk, pytest.mark.filterwarnings("ignore")]

LAG = timedelta(seconds=5)
"""Of the quirk `list-lags`."""


@pytest.fixture
def bench(sandyard: Instance) -> Iterator[BenchClient]:
    made = BenchClient.of_new_organization(sandyard)
    yield made
    made.call("POST", "/reset", {})


@pytest.fixture
def daytona(bench: BenchClient) -> Iterator[Daytona]:
    with client(bench.sandyard, bench.key) as opened:
        yield opened


def switch(bench: BenchClient, name: str) -> None:
    shown = bench.call("POST", "/quirks", {"name": name, "on": True})["quirks"]
    assert [one["name"] for one in shown if one["on"]] == [name]


def follow(sandbox: Sandbox, command: str) -> str:
    sandbox.process.create_session("s")
    made = sandbox.process.execute_session_command("s", SessionExecuteRequest(command=command, run_async=True))
    seen: list[str] = []
    asyncio.run(sandbox.process.get_session_command_logs_async("s", made.cmd_id, seen.append, seen.append))
    return "".join(seen)


def test_none_is_on_at_first_and_an_unknown_one_is_refused(bench: BenchClient) -> None:
    shown = bench.call("GET", "/quirks")["quirks"]
    assert shown
    assert not any(one["on"] for one in shown)
    assert all(one["source"] for one in shown)
    assert "list-lags" in bench.ask("POST", "/quirks", {"name": "lags", "on": True}).json()["message"]


def test_a_create_answers_creating_on_the_wire_and_the_sdk_waits(bench: BenchClient, daytona: Daytona) -> None:
    switch(bench, "create-answers-creating")
    headers = {"Authorization": f"Bearer {bench.key}"}
    assert request("POST", f"{bench.sandyard.api_url}/sandbox", {}, headers=headers).json()["state"] == "creating"
    assert daytona.create().state == "started"


def test_a_list_lags(bench: BenchClient, daytona: Daytona) -> None:
    switch(bench, "list-lags")
    while True:
        made = daytona.create()
        listed = [one.id for one in daytona.list()]
        if datetime.now(UTC) - datetime.fromisoformat(str(made.created_at)) < LAG:
            break  # else it took so long to start that it was to be listed
    assert made.id not in listed
    assert daytona.get(made.id).state == "started"


def test_the_first_command_fails_and_the_second_works(bench: BenchClient, daytona: Daytona) -> None:
    switch(bench, "first-command-502")
    sandbox = daytona.create()
    with pytest.raises(DaytonaBadGatewayError):
        sandbox.process.exec("true")
    assert sandbox.process.exec("echo well").result == "well\n"


def test_a_follow_is_refused_once(bench: BenchClient, daytona: Daytona) -> None:
    switch(bench, "follow-502")
    with pytest.raises(DaytonaError, match="502"):
        follow(daytona.create(), "echo never")


def test_a_follow_ends_early_without_an_error(bench: BenchClient, daytona: Daytona) -> None:
    switch(bench, "follow-ends-early")
    assert 0 < len(follow(daytona.create(), "seq 1 5000")) <= 1024


def test_messages_are_cut_at_a_kibibyte_and_this_sdk_loses_nothing(bench: BenchClient, daytona: Daytona) -> None:
    switch(bench, "marker-cut")
    wanted = "".join(f"{number}\n" for number in range(1, 2001))
    assert follow(daytona.create(), "seq 1 2000") == wanted


def test_errors_have_no_body(bench: BenchClient, daytona: Daytona) -> None:
    switch(bench, "empty-error-bodies")
    sandbox = daytona.create()
    with pytest.raises(DaytonaError) as raised:
        sandbox.process.get_session("nobody")
    assert raised.value.code is None


def test_no_runner_is_free_once(bench: BenchClient, daytona: Daytona) -> None:
    switch(bench, "no-runner-once")
    with pytest.raises(DaytonaBadRequestError, match="No available runners"):
        daytona.create()
    assert daytona.create().state == "started"


def test_use_does_not_count(bench: BenchClient, daytona: Daytona) -> None:
    switch(bench, "use-is-no-activity")
    sandbox = daytona.create()
    before = daytona.get(sandbox.id).last_activity_at
    sandbox.process.exec("true")
    owner = BenchClient(bench.sandyard, bench.sandyard.api_key)
    owner.call("GET", "/clock")  # the proxy tells all use that it has seen before it passes this on
    assert daytona.get(sandbox.id).last_activity_at == before
