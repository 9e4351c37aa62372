"""The code interpreter: contexts, what a client hears of its code, limits, deaths, and what is refused."""

import json
import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from tests.contract.wire_client import Refused, WebSocket
from tests.daemon.conftest import Daemon, Starter, eventually
from tests.daemon.test_code_run import OPENAPI, held, resident_kib, running

EXECUTE = "/process/interpreter/execute"
CONTEXT = "/process/interpreter/context"
GO = {"X-Daytona-Source": "sdk-go", "X-Daytona-SDK-Version": "v0.205.1"}


@pytest.fixture
def daemon(start_daemon: Starter) -> Daemon:
    """A daemon that finds the interpreter itself before any script that looks for one."""
    return start_daemon(PATH=f"{sys.base_prefix}/bin:{os.environ['PATH']}")


class Heard:
    """Everything one execution said."""

    def __init__(self, socket: WebSocket) -> None:
        self.messages = [json.loads(message.data) for message in socket.messages(60)]
        self.code = socket.close_code
        self.reason = socket.close_reason
        for message in self.messages:
            assert set(message) == {"type", "text", "name", "value", "traceback"}, "every client finds every key"

    def text(self, stream: str = "stdout") -> str:
        return "".join(message["text"] for message in self.messages if message["type"] == stream)

    @property
    def error(self) -> dict[str, str] | None:
        return next((message for message in self.messages if message["type"] == "error"), None)

    @property
    def controls(self) -> list[str]:
        return [message["text"] for message in self.messages if message["type"] == "control"]


def begin(daemon: Daemon, code: str, headers: Mapping[str, str] | None = None, **fields: Any) -> WebSocket:
    """A socket with its request sent."""
    socket = daemon.websocket(EXECUTE, headers=headers)
    socket.send(json.dumps({"code": code, **fields}))
    return socket


def run(daemon: Daemon, code: str, headers: Mapping[str, str] | None = None, **fields: Any) -> Heard:
    """One execution to its end."""
    return Heard(begin(daemon, code, headers, **fields))


def well(daemon: Daemon, code: str, **fields: Any) -> str:
    """What an execution that ends well prints."""
    heard = run(daemon, code, **fields)
    assert (heard.code, heard.controls, heard.error) == (1000, ["completed"], None), heard.messages
    return heard.text()


def context(daemon: Daemon, **fields: Any) -> str:
    """The id of a new context."""
    answer = daemon.post(CONTEXT, fields)
    assert answer.status == 200, answer.body
    return str(answer.json["id"])


def first_output(socket: WebSocket) -> str:
    """Read until something was printed."""
    return str(json.loads(next(socket.messages(60)).data)["text"])


def check_schema(name: str, value: Any) -> None:
    if OPENAPI.is_file():
        definitions = json.loads(OPENAPI.read_text())["definitions"]
        jsonschema.validate(value, {"$ref": f"#/definitions/{name}", "definitions": definitions})


# What a client hears.


def test_variables_imports_and_functions_stay_from_run_to_run(daemon: Daemon) -> None:
    assert well(daemon, "import math\nx = 20\ndef double(n):\n    return n * 2") == ""
    assert well(daemon, "x += 1\nprint(double(x), math.pi > 3, __name__)") == "42 True __main__\n"


def test_the_value_of_a_last_expression_is_not_shown(daemon: Daemon) -> None:
    assert well(daemon, "1 + 1") == ""


def test_streams_are_told_apart_and_a_print_is_one_message(daemon: Daemon) -> None:
    heard = run(daemon, "import sys\nprint('a', 1)\nprint('b', file=sys.stderr)")
    assert (heard.text(), heard.text("stderr"), heard.controls) == ("a 1\n", "b\n", ["completed"])
    assert len(heard.messages) == 3


def test_output_comes_while_the_code_runs(daemon: Daemon) -> None:
    socket = begin(daemon, "import time\nprint('now')\nwhile not __import__('os').path.exists('go'): time.sleep(0.01)")
    assert first_output(socket) == "now\n"
    (daemon.home / "go").touch()
    assert Heard(socket).controls == ["completed"]


def test_an_exception_is_an_error_message_with_the_users_frames_only(daemon: Daemon) -> None:
    heard = run(daemon, "def f():\n    raise ValueError('wrong value')\n\nf()")
    assert heard.error is not None
    assert (heard.error["name"], heard.error["value"]) == ("ValueError", "wrong value")
    assert re.findall(r'File "([^"]+)", line (\d+)', heard.error["traceback"]) == [("<stdin>", "4"), ("<stdin>", "2")]
    assert (heard.controls, heard.code) == (["completed"], 1000)


def test_a_syntax_error_and_an_exception_that_cannot_be_shown_are_errors_too(daemon: Daemon) -> None:
    heard = run(daemon, "x = 1\ndef f(:")
    assert heard.error is not None
    assert heard.error["name"] == "SyntaxError"
    assert 'File "<stdin>", line 2' in heard.error["traceback"]
    heard = run(daemon, "class Odd(Exception):\n    def __str__(self):\n        raise RuntimeError\nraise Odd")
    assert heard.error is not None
    assert heard.error["name"] == "Odd"
    assert well(daemon, "print('lives')") == "lives\n"


def test_sys_exit_completes_and_keeps_the_state(daemon: Daemon) -> None:
    assert well(daemon, "import sys\nx = 5\nsys.exit(3)") == ""
    assert well(daemon, "print(x)") == "5\n"


def test_variables_of_one_run_do_not_stay_in_the_environment(daemon: Daemon) -> None:
    code = "import os; print(os.environ.get('GREETING'), os.environ['HOME'])"
    assert well(daemon, code, envs={"GREETING": "hi", "HOME": "/elsewhere"}) == "hi /elsewhere\n"
    assert well(daemon, code) == f"None {daemon.home}\n"


def test_d24_subprocesses_are_heard_in_order_with_prints(daemon: Daemon) -> None:
    code = (
        "import os, subprocess\nprint('first')\nsubprocess.run(['sh', '-c', 'printf second; echo no >&2'])\n"
        "os.system('echo third')\nprint('fourth')"
    )
    heard = run(daemon, code)
    assert heard.text() == "first\nsecondthird\nfourth\n"
    assert heard.text("stderr") == "no\n"


def test_d24_a_partial_line_of_a_child_swallows_nothing(daemon: Daemon) -> None:
    assert well(daemon, "import os; os.system('printf foo')") == "foo"


def test_d24_input_finds_nothing_to_read(daemon: Daemon) -> None:
    heard = run(daemon, "input()")
    assert heard.error is not None
    assert heard.error["name"] == "EOFError"
    assert well(daemon, "import os; os.system('cat'); print('on')") == "on\n"


def test_d24_what_a_thread_writes_after_the_end_reaches_the_next_client(daemon: Daemon) -> None:
    code = (
        "import threading, os, time\n"
        "def late():\n    while not os.path.exists('go'): time.sleep(0.01)\n    print('late')\n    open('said', 'w')\n"
        "threading.Thread(target=late).start()"
    )
    assert well(daemon, code) == ""
    (daemon.home / "go").touch()
    eventually(lambda: (daemon.home / "said").exists())
    assert well(daemon, "print('mine')") == "late\nmine\n"


def test_d24_of_much_background_output_the_last_is_kept_and_the_rest_counted(daemon: Daemon) -> None:
    code = (
        "import threading, os, time\n"
        "def late():\n    while not os.path.exists('go'): time.sleep(0.01)\n"
        "    for n in range(50000): print('line', n)\n    open('said', 'w')\n"
        "threading.Thread(target=late).start()"
    )
    assert well(daemon, code) == ""
    (daemon.home / "go").touch()
    eventually(lambda: (daemon.home / "said").exists())
    heard = run(daemon, "print('mine')")
    assert heard.text().endswith("line 49999\nmine\n")
    assert re.search(r"\[\d+ characters of earlier background output were not kept\]", heard.text("stderr"))


def test_d25_a_huge_print_comes_in_pieces_and_whole(daemon: Daemon) -> None:
    heard = run(daemon, "print('é' * 3_000_000)")
    assert heard.text() == "é" * 3_000_000 + "\n"
    assert max(len(message["text"]) for message in heard.messages) <= 32 << 10
    assert heard.controls == ["completed"]


def test_bytes_that_are_no_text_come_as_replacement_characters(daemon: Daemon) -> None:
    assert well(daemon, "import os; os.write(1, b'a\\xff\\xe2\\x82')") == "a��"


def test_code_may_be_long(daemon: Daemon) -> None:
    assert well(daemon, f"x = '{'y' * 3_000_000}'\nprint(len(x))") == "3000000\n"


def test_no_descriptor_of_ours_is_inherited(daemon: Daemon) -> None:
    assert well(
        daemon, "import subprocess; subprocess.run('ls /proc/self/fd | wc -l', shell=True, close_fds=False)"
    ) in (
        "4\n",
        "5\n",
    )


def test_a_forked_child_is_no_second_worker(daemon: Daemon) -> None:
    wait = "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    code = f"import os, sys\npid = os.fork()\nif pid == 0: sys.exit(7)\n{wait}"
    assert well(daemon, code) == "7\n"
    code = f"pid = os.fork()\nif pid == 0: raise ValueError('in the child')\n{wait}"
    heard = run(daemon, code)
    assert (heard.text(), heard.controls, heard.error) == ("1\n", ["completed"], None)
    assert "ValueError: in the child" in heard.text("stderr")
    assert (
        well(daemon, "import multiprocessing as m; p = m.Process(target=print, args=('x',)); p.start(); p.join()")
        == "x\n"
    )


# Limits.


@pytest.mark.parametrize(("headers", "code"), [({}, 4008), (GO, 4001)])
def test_d26_a_timeout_closes_with_the_clients_own_code_and_no_control(
    daemon: Daemon, headers: dict[str, str], code: int
) -> None:
    well(daemon, "x = 1")
    heard = run(daemon, "import time; print('begun'); time.sleep(60)", headers, timeout=1)
    assert (heard.code, heard.controls, heard.error) == (code, [], None)
    assert heard.text() == "begun\n"
    assert well(daemon, "print(x)") == "1\n"


def test_d26_code_that_swallows_the_interrupt_is_killed_and_the_queue_told(daemon: Daemon) -> None:
    stubborn = begin(
        daemon, "import signal; signal.signal(2, lambda *a: None); print('begun')\nwhile True: pass", timeout=1
    )
    assert first_output(stubborn) == "begun\n"
    queued = begin(daemon, "print('never')")
    assert Heard(stubborn).code == 4008
    heard = Heard(queued)
    assert heard.code == 1011
    assert heard.error is not None
    assert "had to be killed" in heard.error["value"]
    assert heard.text() == ""
    assert well(daemon, "print('fresh')") == "fresh\n"


def test_a_timeout_ends_a_command_that_the_code_waits_for(daemon: Daemon) -> None:
    well(daemon, "x = 1")
    assert run(daemon, "import os; os.system('sleep 12331')", timeout=1).code == 4008
    eventually(lambda: not running("sleep 12331"))
    assert well(daemon, "print(x)") == "1\n"


def test_zero_is_no_limit(daemon: Daemon) -> None:
    assert well(daemon, "print(1)", timeout=0) == "1\n"


def test_a_client_interrupts_its_own_code(daemon: Daemon) -> None:
    socket = begin(daemon, "print('begun')\nwhile True: pass")
    assert first_output(socket) == "begun\n"
    socket.send('{"type": "interrupt"}')
    heard = Heard(socket)
    assert (heard.code, heard.controls) == (1000, ["interrupted"])
    assert heard.error is not None
    assert heard.error["name"] == "KeyboardInterrupt"


def test_executions_of_a_context_run_one_after_the_other_and_contexts_beside_each_other(daemon: Daemon) -> None:
    other = context(daemon)
    waits = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.01)\nprint('first')"
    first = begin(daemon, "print('begun')\n" + waits)
    assert first_output(first) == "begun\n"
    rest = [begin(daemon, f"order = globals().get('order', []) + [{n}]; print(order)") for n in range(5)]
    assert well(daemon, "print('beside')", contextId=other) == "beside\n"
    (daemon.home / "go").touch()
    assert Heard(first).text() == "first\n"
    assert [Heard(socket).text() for socket in rest] == [f"{list(range(n + 1))}\n" for n in range(5)]


def test_a_full_queue_refuses(daemon: Daemon) -> None:
    first = begin(daemon, "print('begun')\nimport os, time\nwhile not os.path.exists('go'): time.sleep(0.01)")
    assert first_output(first) == "begun\n"
    queued = [begin(daemon, "pass") for _ in range(129)]
    refused = Heard(queued.pop())
    assert (refused.code, "waiting" in refused.reason) == (1008, True)
    (daemon.home / "go").touch()
    assert Heard(first).code == 1000
    assert {int(Heard(socket).code or 0) for socket in queued} == {1000}


def test_a_slow_client_costs_no_memory_and_loses_nothing(daemon: Daemon) -> None:
    well(daemon, "1")
    before = resident_kib(daemon)
    code = "for n in range(40): print(str(n % 10) * (1 << 20)); open('begun', 'w')\nopen('written', 'w')"
    socket = begin(daemon, code)
    eventually(lambda: (daemon.home / "begun").exists())
    for _ in range(200):
        assert not (daemon.home / "written").exists()
        assert daemon.get("/version").status == 200
    assert resident_kib(daemon) - before < 16_000
    assert Heard(socket).text() == "".join(str(n % 10) * (1 << 20) + "\n" for n in range(40))


def test_endless_output_for_a_client_that_left_is_dropped_until_the_limit(daemon: Daemon) -> None:
    socket = begin(daemon, "while True: print('x' * 1000)", timeout=1)
    first_output(socket)
    socket.cut()
    assert well(daemon, "print('on')") == "on\n"
    assert resident_kib(daemon) < 60_000


def test_code_goes_on_when_its_client_leaves(daemon: Daemon) -> None:
    socket = begin(daemon, "print('begun')\nimport os, time\nwhile not os.path.exists('go'): time.sleep(0.01)\nx = 9")
    assert first_output(socket) == "begun\n"
    socket.cut()
    (daemon.home / "go").touch()
    assert well(daemon, "print(x)") == "9\n"


# Deaths.


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os; print('last', flush=True); os._exit(3)", "ended with exit code 3"),
        ("import ctypes; print('last', flush=True); ctypes.string_at(0)", "was killed by signal 11"),
        ("import os; print('last', flush=True); os.kill(os.getpid(), 9)", "perhaps because memory ran out"),
        ("import os; print('last', flush=True); os.abort()", "was killed by signal 6"),
    ],
)
def test_d23_a_dead_interpreter_is_an_error_at_once_and_a_new_one_follows(
    daemon: Daemon, code: str, words: str
) -> None:
    well(daemon, "x = 1")
    heard = run(daemon, code, timeout=0)
    assert heard.code == 1011
    assert heard.text() == "last\n"
    assert heard.error is not None
    assert words in heard.error["value"]
    assert "variables are lost" in heard.error["value"]
    assert words in heard.reason
    assert well(daemon, "print('x' in globals())") == "False\n"


def test_d23_those_who_wait_behind_a_dead_interpreter_are_told(daemon: Daemon) -> None:
    code = "print('begun')\nimport os, time\nwhile not os.path.exists('go'): time.sleep(0.01)\nos._exit(1)"
    first = begin(daemon, code)
    assert first_output(first) == "begun\n"
    queued = begin(daemon, "print('never')", timeout=0)
    assert daemon.get("/version").status == 200
    (daemon.home / "go").touch()
    assert Heard(first).code == 1011
    heard = Heard(queued)
    assert (heard.code, heard.text()) == (1011, "")
    assert heard.error is not None
    assert "not run: the interpreter process ended with exit code 1" in heard.error["value"]


def test_an_interpreter_that_died_between_two_runs_is_told_to_the_next(daemon: Daemon) -> None:
    code = "import threading, os, time\nprint(os.getpid())\nthreading.Timer(0.05, os._exit, [4]).start()"
    pid = int(well(daemon, code))
    eventually(lambda: not Path(f"/proc/{pid}").exists())
    heard = run(daemon, "print('fresh')")
    assert (heard.text(), heard.controls) == ("fresh\n", ["completed"])
    assert "ended with exit code 4 since the last execution" in heard.text("stderr")


def test_what_a_dead_interpreter_started_ends_with_it(daemon: Daemon) -> None:
    code = "import os, subprocess\nsubprocess.Popen(['setsid', 'sleep', '12332'])\nos._exit(1)"
    assert run(daemon, code).code == 1011
    eventually(lambda: not running("sleep 12332"))


def test_a_worker_that_writes_into_the_protocol_is_an_error_and_no_hang(daemon: Daemon) -> None:
    code = (
        "import os, time\n"
        "for fd in map(int, os.listdir('/proc/self/fd')):\n"
        "    if fd >= 100:\n"
        '        try: os.write(fd, b\'{"done": [], "error"\\n\')\n'
        "        except OSError: pass\n"
        "time.sleep(60)"
    )
    assert run(daemon, code).code == 1011
    assert well(daemon, "print(1)") == "1\n"


# Contexts.


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
    assert running("sleep 12334")
    daemon.process.terminate()
    assert daemon.process.wait(10) == 0
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
