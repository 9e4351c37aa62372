"""Terminals in hard times: floods, stalls, leaks. Numbers are defects of the original (toolbox-daemon.md 17.3)."""

import contextlib
import os
import subprocess

from tests.daemon.conftest import Daemon, Starter, eventually
from tests.daemon.processes import descriptors
from tests.daemon.terminal.screens import Screen, connect, held_back, memory, open_screen, tree


def test_d27_everything_written_before_the_end_arrives_before_exited(daemon: Daemon) -> None:
    for number in range(20):
        screen = open_screen(daemon, f"t{number}")
        screen.type("seq 1 20000; exit 7\n")
        screen.rest()
        assert screen.seen.startswith(b"1\r\n2\r\n")
        assert b"\r\n19999\r\n20000\r\n" in screen.seen[-100:]
        assert screen.controls[-1]["exitCode"] == 7


def test_d27_output_of_a_helper_that_holds_the_terminal_still_arrives(start_daemon: Starter) -> None:
    patience = {"QUIET_SECONDS": 1, "DRAIN_SECONDS": 60}
    daemon = start_daemon(constants={f"sandyard_daemon.terminal.terminal.{name}": patience[name] for name in patience})
    # It runs already when the shell ends, and writes without a pause: a short silence means that nothing follows.
    os.mkfifo(daemon.home / "gate")
    helper = "trap '' HUP; set -- {1..5000}; echo on > gate; for i; do echo late$i; done; sleep 1000"
    screen = open_screen(daemon)
    screen.type(f"({helper}) & read line < gate; exit 0\n")
    screen.rest()
    assert b"late5000\r\n" in screen.seen
    assert screen.controls[-1] == {"type": "control", "status": "exited", "exitCode": 0}


def test_d28_a_late_client_sees_what_was_written_before(daemon: Daemon, screen: Screen) -> None:
    screen.run("echo early-$((1+1))")
    late = connect(daemon)
    late.until(b"early-2\r\n")
    assert late.controls == [{"type": "control", "status": "connected"}]


def test_d28_the_replay_is_bounded_and_begins_at_a_line(daemon: Daemon, screen: Screen) -> None:
    screen.run("seq -f 'line %012g é' 1 60000")
    late = connect(daemon)
    replayed = late.until(b"done\r\n")
    assert 200_000 < len(replayed) <= 256 << 10
    lines = replayed.decode().split("\r\n")
    assert all(line.startswith("line ") for line in lines[:-1])
    assert lines[-2] == "line 000000060000 é"


def test_d28_old_questions_are_not_asked_again(daemon: Daemon, screen: Screen) -> None:
    screen.run(r"printf 'a\033[cb\033[6nc\033]10;?\007d\033[>ce\033[31mred'")
    late = connect(daemon)
    late.until(b"abcde\x1b[31mred")


def test_d28_what_was_asked_before_the_first_client_is_asked_of_it(daemon: Daemon) -> None:
    (daemon.home / ".bash_profile").write_text("printf 'who\\033[c are you\\n'")
    assert daemon.post("/process/pty", {"id": "t"}).status == 201
    connect(daemon).until(b"who\x1b[c are you")


def test_d28_a_stalled_client_is_dropped_while_a_fast_one_reads_on(daemon: Daemon, screen: Screen) -> None:
    stalled = connect(daemon)
    screen.type("exec yes 0123456789012345678901234567890123456789\n")
    for _ in range(3000):
        assert screen.read()
        screen.seen = screen.seen[-100:]
    peak = int(memory(daemon, "VmHWM"))
    assert peak < 45_000, "KiB, with the window and two clients' buffers"
    stalled.rest()
    assert (stalled.socket.close_code, stalled.socket.close_reason) == (1008, "slow consumer")
    assert screen.read()


def test_d28_alone_a_slow_client_holds_the_program_back(daemon: Daemon, screen: Screen) -> None:
    screen.type("seq 1 2000000 > /dev/tty; echo $? all\n")
    eventually(lambda: held_back(daemon))
    while b"0 all\r\n" not in screen.seen:
        assert screen.read()
        screen.seen = screen.seen[-40_000:]
    assert b"\r\n1999999\r\n2000000\r\n0 all\r\n" in screen.seen
    assert int(memory(daemon, "VmHWM")) < 45_000


def test_d29_nothing_leaks_over_a_hundred_terminals(daemon: Daemon) -> None:
    open_screen(daemon, "first").type("exit\n")
    eventually(lambda: daemon.get("/process/pty").json["sessions"] == [] and tree(daemon) == [])
    files = eventually(lambda: descriptors(daemon))
    screens = [open_screen(daemon, f"t{number}") for number in range(100)]
    assert len(daemon.get("/process/pty").json["sessions"]) == 100
    for number, screen in enumerate(screens):
        if number % 3 == 0:
            screen.type("exit\n")
            screen.rest()
        elif number % 3 == 1:
            assert daemon.ask("DELETE", f"/process/pty/t{number}").status == 200
            screen.rest()
        else:
            screen.socket.cut()
            assert daemon.ask("DELETE", f"/process/pty/t{number}").status == 200
    eventually(lambda: tree(daemon) == [])
    eventually(lambda: descriptors(daemon) <= files)
    assert daemon.get("/process/pty").json == {"sessions": []}


def test_d29_a_delete_and_an_exit_at_once_give_one_end(daemon: Daemon) -> None:
    for number in range(20):
        screen = open_screen(daemon, f"t{number}")
        screen.type("exit 5\n")
        assert daemon.ask("DELETE", f"/process/pty/t{number}").status in (200, 404)
        screen.rest()
        ends = [each for each in screen.controls if each["status"] == "exited"]
        assert len(ends) == 1
        assert ends[0]["exitCode"] in (5, 137)


def test_d29_a_paste_of_a_mebibyte_arrives_whole(daemon: Daemon, screen: Screen) -> None:
    screen.type("stty raw; printf 'wait%s' ing; head -c 1048576 | cksum; stty sane; stty -echo; printf 'd%s\\n' one\n")
    screen.until(b"waiting")  # before that the terminal makes newlines of carriage returns
    pasted = b"\0\xff\n\r" * (1 << 18)
    screen.type(pasted)
    expected = subprocess.run(["cksum"], input=pasted, capture_output=True, check=True).stdout.split()[0]
    assert expected in screen.until(b"done\r\n")


def test_d29_a_resize_of_an_unknown_terminal_is_410(daemon: Daemon) -> None:
    answer = daemon.post("/process/pty/nobody/resize", {"cols": 80, "rows": 24})
    assert (answer.status, answer.json["code"]) == (410, "GONE")
    for body in ({"cols": 0, "rows": 24}, {"cols": 80}, {"cols": 1001, "rows": 1}, {"cols": "80", "rows": 24}):
        assert daemon.post("/process/pty/nobody/resize", body).status == 400


def test_input_that_a_program_does_not_read_is_bounded_and_ends_that_client_only(daemon: Daemon) -> None:
    screen = open_screen(daemon)
    screen.type("stty raw -echo; printf 'd%s\\n' one; exec sleep 1000\n")
    screen.until(b"done")
    flooder = connect(daemon)
    with contextlib.suppress(OSError):
        for _ in range(64):
            flooder.type(bytes(1 << 20))
    flooder.rest()
    assert flooder.socket.close_code == 1008
    assert "does not read" in flooder.socket.close_reason
    assert int(memory(daemon, "VmHWM")) < 45_000
    assert daemon.get("/process/pty/t").json["active"] is True
    screen.socket.ping(b"alive")
    assert daemon.ask("DELETE", "/process/pty/t").status == 200
    screen.rest()
    assert screen.socket.pongs == [b"alive"]


def test_pings_are_answered_while_output_floods(daemon: Daemon, screen: Screen) -> None:
    screen.type("exec yes\n")
    screen.until(b"y\r\ny\r\n")
    screen.socket.ping(b"still there?")
    while not screen.socket.pongs:
        assert screen.read()
        screen.seen = b""
    screen.type(b"\x03")
    screen.rest()
    assert screen.controls[-1]["exitCode"] == 130
