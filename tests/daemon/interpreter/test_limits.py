"""The code interpreter: timeouts, interrupts, queues, slow clients, and deaths."""

import pytest

from tests.daemon.conftest import Daemon, cut_off, eventually
from tests.daemon.interpreter.runs import CONTEXT, GO, Heard, begin, context, first_output, run, well
from tests.daemon.test_code_run import resident_kib, running


@pytest.mark.parametrize(("headers", "code"), [({}, 4008), (GO, 4001)])
def test_d26_a_timeout_closes_with_the_clients_own_code_and_no_control(
    daemon: Daemon, headers: dict[str, str], code: int
) -> None:
    well(daemon, "x = 1")
    sleeping = "import time; print('begun'); time.sleep(600)"
    heard = cut_off(lambda seconds: run(daemon, sleeping, headers, timeout=seconds), Heard.text)
    assert (heard.code, heard.controls, heard.error) == (code, [], None)
    assert heard.text() == "begun\n"
    assert well(daemon, "print(x)") == "1\n"


def test_d26_code_that_swallows_the_interrupt_is_killed_and_the_queue_told(daemon: Daemon) -> None:
    stubborn = "import signal; signal.signal(2, lambda *a: None); print('begun')\nwhile True: pass"

    def both(seconds: int) -> tuple[Heard, Heard]:
        sockets = begin(daemon, stubborn, timeout=seconds), begin(daemon, "print('never')")
        return Heard(sockets[0]), Heard(sockets[1])

    first, heard = cut_off(both, lambda each: each[0].text())
    assert (first.text(), first.code, heard.code) == ("begun\n", 4008, 1011)
    assert heard.error is not None
    assert "had to be killed" in heard.error["value"]
    assert heard.text() == ""
    assert well(daemon, "print('fresh')") == "fresh\n"


def test_a_timeout_ends_a_command_that_the_code_waits_for(daemon: Daemon) -> None:
    well(daemon, "x = 1")
    waiting, has_begun = "import os; os.system('touch begun; sleep 12331')", (daemon.home / "begun").exists
    assert cut_off(lambda seconds: run(daemon, waiting, timeout=seconds), lambda _: has_begun()).code == 4008
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
    socket = begin(daemon, "while True: print('x' * 1000)", timeout=3)
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
    code = (
        "import threading, os, time\n"
        "def end():\n    while not os.path.exists('go'): time.sleep(0.01)\n    os._exit(4)\n"
        "threading.Thread(target=end).start()"
    )
    one = context(daemon)
    assert well(daemon, code, contextId=one) == ""
    (daemon.home / "go").touch()
    # Until the daemon knows: that its process is gone is seen in /proc a moment before.
    eventually(lambda: [each["active"] for each in daemon.get(CONTEXT).json["contexts"]] == [False])
    heard = run(daemon, "print('fresh')", contextId=one)
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
