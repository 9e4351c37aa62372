"""Each fault makes the newest Python SDK fail in the way its code says it should."""

import asyncio
import contextlib
import time
from collections.abc import Iterator

import pytest

daytona_sdk = pytest.importorskip("daytona", reason="the newest Python SDK is a development dependency")

from daytona import (  # noqa: E402
    CreateSandboxFromSnapshotParams,
    Daytona,
    Sandbox,
    SessionExecuteRequest,
)
from daytona.common.errors import (  # noqa: E402
    DaytonaBadGatewayError,
    DaytonaBadRequestError,
    DaytonaConflictError,
    DaytonaConnectionError,
    DaytonaError,
    DaytonaNotFoundError,
    DaytonaRateLimitError,
    DaytonaServiceUnavailableError,
    DaytonaTimeoutError,
)

from tests.contract.bench import BenchClient  # noqa: E402
from tests.contract.python_client import client  # noqa: E402
from tests.contract.running import Instance  # noqa: E402
from tests.daemon.conftest import eventually  # noqa: E402

pytestmark = [pytest.mark.sdk, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def bench(sandyard: Instance) -> Iterator[BenchClient]:
    """An organization for one test; what was ordered and did not happen fails it."""
    made = BenchClient.of_new_organization(sandyard)
    yield made
    assert made.clear() == []
    made.call("POST", "/reset", {})


@pytest.fixture
def daytona(bench: BenchClient) -> Iterator[Daytona]:
    with client(bench.sandyard, bench.key) as opened:
        yield opened


@pytest.fixture
def sandbox(daytona: Daytona) -> Sandbox:
    return daytona.create()


SECONDS = 60.0
EXECUTE = {"operation": "ExecuteCommand"}
LOGS = {"operation": "GetSessionCommandLogs"}


@pytest.mark.parametrize(
    ("status", "kind"),
    [(429, DaytonaRateLimitError), (503, DaytonaServiceUnavailableError), (404, DaytonaNotFoundError)],
)
def test_a_status_of_the_toolbox_becomes_the_error_class_with_message_code_and_source(
    bench: BenchClient, sandbox: Sandbox, status: int, kind: type[DaytonaError]
) -> None:
    bench.fault("status", rule=EXECUTE, status=status, message="not today", code="ORDERED")
    with pytest.raises(kind, match="not today") as raised:
        sandbox.process.exec("true")
    assert (raised.value.status_code, raised.value.code) == (status, "ORDERED")
    assert raised.value.source == "DAYTONA_DAEMON"
    assert sandbox.process.exec("echo well").result.strip() == "well", "it fires once"


def test_a_status_of_the_api_hits_the_call_that_was_counted(bench: BenchClient, daytona: Daytona) -> None:
    bench.fault("status", rule={"operation": "createSandbox", "nth": 2, "label": "hit=yes"}, status=409)
    for labels in ({"hit": "yes"}, {"hit": "no"}):
        daytona.create(CreateSandboxFromSnapshotParams(labels=labels))
    with pytest.raises(DaytonaConflictError, match="ordered") as raised:
        daytona.create(CreateSandboxFromSnapshotParams(labels={"hit": "yes"}))
    assert raised.value.source == "DAYTONA_API"


def test_one_organizations_faults_do_not_meet_another(bench: BenchClient, sandyard: Instance, sandbox: Sandbox) -> None:
    other = BenchClient.of_new_organization(sandyard)
    other.fault("status", rule=EXECUTE, status=500)
    assert sandbox.process.exec("echo well").result.strip() == "well"
    assert len(other.clear()) == 1, "a fault that never fired is told"


def test_a_delay_runs_into_the_clients_deadline(bench: BenchClient, daytona: Daytona) -> None:
    bench.fault("delay", rule={"operation": "createSandbox"}, seconds=3)
    with pytest.raises(DaytonaTimeoutError):
        daytona.create(timeout=1)


def test_a_drop_before_the_work_is_retried_by_the_sdk_and_an_error_when_it_goes_on(
    bench: BenchClient, sandbox: Sandbox
) -> None:
    bench.fault("drop", rule=EXECUTE)
    sandbox.process.exec("echo once >> drops")
    assert sandbox.process.exec("cat drops").result == "once\n"
    bench.fault("drop", rule=EXECUTE | {"count": 0})
    with pytest.raises(DaytonaError, match="closed connection without response"):
        sandbox.process.exec("echo never >> drops")


def test_a_drop_after_the_work_makes_the_sdk_do_it_twice(bench: BenchClient, sandbox: Sandbox) -> None:
    bench.fault("drop-after", rule=EXECUTE)
    sandbox.process.exec("echo done >> work")
    assert sandbox.process.exec("cat work").result == "done\ndone\n"


def test_a_drop_after_the_commit_of_a_create_leaves_the_sandbox_behind(bench: BenchClient, daytona: Daytona) -> None:
    bench.fault("drop-after", rule={"operation": "createSandbox", "count": 0})
    with pytest.raises(DaytonaError):
        daytona.create(CreateSandboxFromSnapshotParams(name="left"))
    bench.clear()
    eventually(lambda: daytona.get("left").state == "started", SECONDS)


def test_an_answer_that_is_cut_is_a_connection_error(bench: BenchClient, sandbox: Sandbox) -> None:
    bench.fault("cut", rule=EXECUTE | {"count": 0}, bytes=5)
    with pytest.raises(DaytonaError):
        sandbox.process.exec("echo hello")


def _follow(sandbox: Sandbox, command: str = "printf 'aaaaabbbbbccccc'; sleep 0.2; echo end") -> str:
    sandbox.process.create_session("s")
    made = sandbox.process.execute_session_command("s", SessionExecuteRequest(command=command, run_async=True))
    seen: list[str] = []
    asyncio.run(sandbox.process.get_session_command_logs_async("s", made.cmd_id, seen.append, seen.append))
    return "".join(seen)


def test_a_log_stream_that_is_cut_at_a_byte_is_an_error_after_just_those_bytes(
    bench: BenchClient, sandbox: Sandbox
) -> None:
    bench.fault("cut", rule=LOGS, bytes=3 + 7)  # the stream's marker, then seven bytes
    seen: list[str] = []
    sandbox.process.create_session("s")
    request = SessionExecuteRequest(command="printf 'aaaaabbbbbccccc'; sleep 2; echo end", run_async=True)
    made = sandbox.process.execute_session_command("s", request)
    with pytest.raises(DaytonaError):
        asyncio.run(sandbox.process.get_session_command_logs_async("s", made.cmd_id, seen.append, seen.append))
    assert "".join(seen) == "aaaaabb"


def test_a_log_stream_closed_with_a_code_is_an_error_that_names_it(bench: BenchClient, sandbox: Sandbox) -> None:
    bench.fault("close", rule=LOGS, code=1011, reason="ordered end")
    with pytest.raises(DaytonaError, match=r"1011|ordered end"):
        _follow(sandbox)


def test_a_stalled_stream_comes_late_and_whole(bench: BenchClient, sandbox: Sandbox) -> None:
    bench.fault("stall", rule=LOGS, seconds=1.0, bytes=4)
    begun = time.monotonic()
    assert _follow(sandbox) == "aaaaabbbbbcccccend\n"
    assert time.monotonic() - begun >= 1.0


def test_a_sliced_stream_comes_in_pieces_and_whole(bench: BenchClient, sandbox: Sandbox) -> None:
    bench.fault("slice", rule=LOGS, bytes=4)
    assert _follow(sandbox) == "aaaaabbbbbcccccend\n"


@pytest.mark.parametrize(
    ("kind", "reason"), [("die", "first process was killed"), ("out-of-memory", "killed: out of memory")]
)
def test_a_sandbox_that_dies_refuses_and_is_stopped_with_the_reason(
    bench: BenchClient, sandbox: Sandbox, daytona: Daytona, kind: str, reason: str
) -> None:
    bench.fault(kind, rule={"sandbox": sandbox.id, "operation": "ExecuteCommand"})
    with pytest.raises((DaytonaBadRequestError, DaytonaBadGatewayError)):
        sandbox.process.exec("echo never")
    eventually(lambda: daytona.get(sandbox.id).state == "stopped", SECONDS)
    history = bench.call("GET", f"/sandboxes/{sandbox.id}")["history"]
    assert reason in history[-1]["cause"]
    sandbox.start()
    assert sandbox.process.exec("echo again").result == "again\n"


def test_a_hanging_sandbox_is_the_clients_deadline(bench: BenchClient, sandbox: Sandbox) -> None:
    bench.fault("hang", rule={"sandbox": sandbox.id, "path": "/toolbox/*", "count": 0})
    with pytest.raises((DaytonaTimeoutError, DaytonaConnectionError)):
        sandbox.process.exec("true", timeout=1)


def test_a_runner_that_is_gone_refuses_creates_and_commands(
    bench: BenchClient, daytona: Daytona, sandbox: Sandbox
) -> None:
    bench.fault("runner-gone", rule={"path": "*", "method": "POST", "count": 0})
    with pytest.raises(DaytonaBadRequestError, match="No available runners"):
        daytona.create()
    with pytest.raises(DaytonaBadGatewayError, match="runner does not answer"):
        sandbox.process.exec("true")


def test_a_pull_that_fails_is_the_sandboxes_error(bench: BenchClient, daytona: Daytona) -> None:
    bench.fault("pull-fails", rule={"label": "image=bad"}, message="manifest unknown")
    with pytest.raises(DaytonaError, match="manifest unknown"):
        daytona.create(CreateSandboxFromSnapshotParams(labels={"image": "bad"}))
    with contextlib.suppress(DaytonaError):
        assert daytona.create(CreateSandboxFromSnapshotParams(labels={"image": "bad"})).state == "started"


def test_chance_is_the_same_for_the_same_seed(bench: BenchClient, sandbox: Sandbox) -> None:
    def outcomes() -> list[bool]:
        rule = EXECUTE | {"count": 0, "chance": 0.5, "seed": 42}
        bench.fault("status", rule=rule, status=500)
        met = []
        for _ in range(8):
            try:
                sandbox.process.exec("true")
                met.append(False)
            except DaytonaError:
                met.append(True)
        bench.clear()
        return met

    first = outcomes()
    assert first == outcomes()
    assert set(first) == {True, False}


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"action": {"kind": "status", "status": 500}}, "needs a condition"),
        ({"operation": "createSandbx", "action": {"kind": "drop"}}, "createSandbox"),
        ({"operation": "createSandbox", "action": {"kind": "explode"}}, "explode"),
        ({"operation": "createSandbox", "action": {"kind": "status", "status": 200}}, "400 to 599"),
        ({"operation": "createSandbox", "action": {"kind": "delay", "seconds": -1}}, "seconds"),
        ({"operation": "createSandbox", "chance": 0.5, "action": {"kind": "drop"}}, "seed"),
        ({"operation": "createSandbox", "nth": 0, "action": {"kind": "drop"}}, "nth"),
        ({"operation": "createSandbox", "action": {"kind": "close", "code": 1005}}, "code"),
        ({"operation": "createSandbox", "often": 1, "action": {"kind": "drop"}}, "often"),
        ({"operation": "createSandbox", "action": {"kind": "pull-fails"}}, "about a sandbox"),
        ({"path": "api", "action": {"kind": "drop"}}, "begins with /"),
    ],
)
def test_a_bad_rule_is_refused_with_the_reason(bench: BenchClient, rule: dict[str, object], words: str) -> None:
    answer = bench.ask("POST", "/faults", rule)
    assert answer.status == 400
    assert words in answer.json()["message"]
