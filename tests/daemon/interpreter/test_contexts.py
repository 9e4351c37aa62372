"""The code interpreter: contexts, the socket and what it refuses, and that nothing is left."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.wire_client import Refused
from tests.daemon.conftest import Daemon, Starter, eventually
from tests.daemon.interpreter.runs import CONTEXT, EXECUTE, Heard, begin, check_schema, context, first_output, run, well
from tests.daemon.test_code_run import held, resident_kib, running


def test_contexts_are_apart_listed_and_deleted_with_everything_in_them(daemon: Daemon) -> None:
    one, two = context(daemon), context(daemon, cwd="/tmp", language="Python")
    well(daemon, "x = 'default'")
    well(daemon, "x = 'one'; import subprocess; subprocess.Popen(['setsid', 'sleep', '12333'])", contextId=one)
    assert well(daemon, "import os; print('x' in globals(), os.getcwd())", contextId=two) == "False /tmp\n"
    assert well(daemon, "print(x)") == "default\n"
    listed = daemon.get(CONTEXT).json
    check_schema("ListContextsResponse", listed)
    assert [each["id"] for each in listed["contexts"]] == [one, two]
    assert {each["active"] for each in listed["contexts"]} == {True}
    assert [each["cwd"] for each in listed["contexts"]] == [str(daemon.home), "/tmp"]
    answer = daemon.ask("DELETE", f"{CONTEXT}/{one}")
    assert (answer.status, list(answer.json)) == (200, ["message"])
    assert not running("sleep 12333")
    assert [each["id"] for each in daemon.get(CONTEXT).json["contexts"]] == [two]


def test_a_context_fits_the_description_and_the_sdks_strict_model(daemon: Daemon) -> None:
    made = daemon.post(CONTEXT, {})
    check_schema("InterpreterContext", made.json)
    client = pytest.importorskip("daytona_toolbox_api_client")
    assert client.InterpreterContext.from_dict(made.json).language == "python"


def test_deleting_a_context_fails_what_runs_and_waits_in_it(daemon: Daemon) -> None:
    one = context(daemon)
    first = begin(daemon, "print('begun')\nwhile True: pass", contextId=one, timeout=0)
    assert first_output(first) == "begun\n"
    queued = begin(daemon, "print('never')", contextId=one)
    assert daemon.get("/version").status == 200
    assert daemon.ask("DELETE", f"{CONTEXT}/{one}").status == 200
    for socket in (first, queued):
        heard = Heard(socket)
        assert (heard.code, heard.text(), heard.controls) == (1001, "", [])
        assert heard.error is not None
    again = run(daemon, "1", contextId=one)
    assert again.code == 1008
    assert again.error is not None
    assert "not found" in again.error["value"]


def test_contexts_end_with_the_daemon(start_daemon: Starter) -> None:
    daemon = start_daemon()
    for where in ({}, {"contextId": context(daemon)}):
        well(daemon, "import subprocess; subprocess.Popen(['setsid', 'sleep', '12334'])", **where)
    eventually(lambda: running("sleep 12334"))  # `setsid` becomes it a moment after it was started
    daemon.process.terminate()
    assert daemon.process.wait(60) == 0
    eventually(lambda: not running("sleep 12334"))


@pytest.mark.parametrize(
    "body",
    [b"", b"no", [], {"language": "ruby"}, {"cwd": "/nowhere"}, {"cwd": "/etc/passwd"}, {"cwd": 5}, {"cwd": "a\0b"}],
)
def test_bad_contexts_are_refused(daemon: Daemon, body: Any) -> None:
    answer = daemon.post(CONTEXT, body)
    assert answer.status == 400
    check_schema("ErrorResponse", answer.json)
    assert daemon.get(CONTEXT).json == {"contexts": []}


def test_the_default_and_unknown_contexts_cannot_be_deleted(daemon: Daemon) -> None:
    assert daemon.ask("DELETE", f"{CONTEXT}/default").status == 400
    answer = daemon.ask("DELETE", f"{CONTEXT}/nope")
    assert (answer.status, answer.json["code"]) == (404, "NOT_FOUND")


# The socket.


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("no json", 1002),
        ("[]", 1002),
        (b"\xff", 1002),
        ('{"code": "\\ud800", "contextId": "\\ud800"}', 1002),
        ("{}", 1008),
        ('{"code": ""}', 1008),
        ('{"code": 1}', 1008),
        ('{"code": "1", "timeout": -1}', 1008),
        ('{"code": "1", "timeout": "soon"}', 1008),
        ('{"code": "1", "envs": [1]}', 1008),
        ('{"code": "1", "envs": {"A=B": "c"}}', 1008),
        ('{"code": "1", "contextId": 5}', 1008),
        ('{"code": "1", "contextId": "unknown"}', 1008),
    ],
)
def test_bad_requests_close_with_a_reason(daemon: Daemon, message: str | bytes, code: int) -> None:
    socket = daemon.websocket(EXECUTE)
    socket.send(message)
    heard = Heard(socket)
    assert heard.code == code
    assert heard.reason
    assert heard.controls == []


def test_a_request_may_come_as_bytes_and_in_any_spelling_of_its_keys(daemon: Daemon) -> None:
    socket = daemon.websocket(EXECUTE)
    socket.send(b'{"CODE": "print(1)", "contextid": "default", "unknown": 1}')
    assert Heard(socket).text() == "1\n"


def test_one_offered_subprotocol_is_chosen_and_none_invented(daemon: Daemon) -> None:
    version = "X-Daytona-SDK-Version~0.218.0"
    assert daemon.websocket(EXECUTE, protocols=["other", version]).subprotocol == version
    assert daemon.websocket(EXECUTE, protocols=["other"]).subprotocol == "other"
    assert daemon.websocket(EXECUTE).subprotocol is None


def test_a_plain_request_is_told_to_upgrade(daemon: Daemon) -> None:
    assert daemon.get(EXECUTE).status == 400
    with pytest.raises(Refused):
        daemon.websocket("/process/interpreter/other")


def test_pings_are_answered_while_output_floods(daemon: Daemon) -> None:
    socket = begin(daemon, "for n in range(300): print('x' * 10000)")
    socket.ping(b"there?")
    assert Heard(socket).controls == ["completed"]
    assert socket.pongs == [b"there?"]


# Nothing is left.


@pytest.fixture
def counted(daemon: Daemon) -> Iterator[Daemon]:
    """A daemon that holds as much after the test as after its first execution."""

    for _ in range(5):
        well(daemon, "print(1)")
    daemon.get("/version")  # the connection that this client keeps
    before, memory = held(daemon), resident_kib(daemon)
    yield daemon
    # The last connection before the count may have been closing still, so that less is as well.
    eventually(lambda: all(now <= then for now, then in zip(held(daemon), before, strict=True)))
    assert resident_kib(daemon) - memory < 6_000


def test_two_hundred_runs_leave_nothing(counted: Daemon) -> None:
    for number in range(200):
        assert well(counted, f"print({number})") == f"{number}\n"


def test_contexts_and_deaths_leave_nothing(counted: Daemon) -> None:
    for _ in range(20):
        one = context(counted)
        well(counted, "x = 1", contextId=one)
        assert counted.ask("DELETE", f"{CONTEXT}/{one}").status == 200
        assert run(counted, "import os; os._exit(0)").code == 1011
    well(counted, "print(1)")


def test_many_clients_at_once(counted: Daemon) -> None:
    texts: list[str] = []

    def ask(number: int) -> None:
        texts.append(well(counted, f"print({number})"))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(texts) == sorted(f"{number}\n" for number in range(40))
