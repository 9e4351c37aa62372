"""The code interpreter: what a client hears of its code."""

import re

from tests.daemon.conftest import Daemon, eventually
from tests.daemon.interpreter.runs import Heard, begin, first_output, run, well


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
