"""Terminals over the door: one shell, several clients, and every end told."""

import base64
import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.wire_client import Refused, WebSocket
from tests.daemon.conftest import Daemon, Starter, eventually

EXIT = "X-Daytona-Pty-Exit-Control"


class Screen:
    """A client of a terminal that keeps what it saw."""

    def __init__(self, socket: WebSocket) -> None:
        self.socket = socket
        self.controls: list[dict[str, Any]] = []
        self.seen = b""
        self._messages = socket.messages(60)

    def read(self) -> bool:
        """One more message; false at the close."""
        message = next(self._messages, None)
        if message is None:
            return False
        if message.is_text:
            self.controls.append(json.loads(message.data))
        else:
            self.seen += message.data
        return True

    def until(self, text: bytes) -> bytes:
        """Read until the text was shown; what came before it."""
        while text not in self.seen:
            assert self.read(), self.seen[-500:]
        before, _, self.seen = self.seen.partition(text)
        return before

    def rest(self) -> bytes:
        """Everything to the close."""
        while self.read():
            pass
        return self.seen

    def type(self, text: str | bytes) -> None:
        self.socket.send(text)

    def run(self, command: str) -> bytes:
        """Run a command and return what it printed; the typed line's echo does not hold the end marker."""
        self.type(command + "; printf 'd%s\\n' one\n")
        return self.until(b"done\r\n")


def envs_token(envs: Any) -> str:
    return "X-Daytona-Pty-Envs~" + base64.urlsafe_b64encode(json.dumps(envs).encode()).decode().rstrip("=")


def open_screen(daemon: Daemon, name: str = "t", query: str = "", protocols: tuple[str, ...] = (EXIT,)) -> Screen:
    """Create and connect, quiet: without prompt and line editing, so that a test sees what programs write."""
    screen = Screen(daemon.websocket(f"/process/pty/create-connect?id={name}{query}", protocols))
    screen.type("PS1=; PS2=; stty -echo; bind 'set enable-bracketed-paste off' 2>/dev/null; printf 'rea%s\\n' dy\n")
    screen.until(b"ready\r\n")
    return screen


def connect(daemon: Daemon, name: str = "t", protocols: tuple[str, ...] = (EXIT,)) -> Screen:
    return Screen(daemon.websocket(f"/process/pty/{name}/connect", protocols))


def refused(daemon: Daemon, path: str, protocols: tuple[str, ...] = ()) -> tuple[int, dict[str, Any]]:
    with pytest.raises(Refused) as caught:
        daemon.websocket(path, protocols)
    return caught.value.status, json.loads(caught.value.body)


def open_files(daemon: Daemon) -> int:
    return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))


def tree(daemon: Daemon) -> list[int]:
    """Every process below the daemon."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                parents.setdefault(parent, []).append(int(entry.name))
    found, ahead = [], [daemon.process.pid]
    while ahead:
        below = parents.get(ahead.pop(), [])
        found += below
        ahead += below
    return found


def lives(pid: int) -> bool:
    """Whether it is there, and not only as a record that nobody has read."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.fixture
def screen(daemon: Daemon) -> Iterator[Screen]:
    """A terminal called `t`."""
    screen = open_screen(daemon)
    yield screen
    daemon.ask("DELETE", "/process/pty/t")


# Create, list, info, resize, delete.


def test_a_terminal_is_created_listed_resized_and_deleted(daemon: Daemon) -> None:
    wish = {"id": "one", "cols": 100, "rows": 40, "envs": {"A": "b"}, "cwd": "/tmp"}
    answer = daemon.post("/process/pty", wish)
    assert (answer.status, answer.json) == (201, {"sessionId": "one"})
    info = daemon.get("/process/pty/one").json
    created = info.pop("createdAt")
    assert created.endswith("Z")
    assert info == {
        "id": "one",
        "cwd": "/tmp",
        "envs": {"A": "b", "TERM": "xterm-256color"},
        "cols": 100,
        "rows": 40,
        "active": True,
        "lazyStart": False,
    }
    assert [each["id"] for each in daemon.get("/process/pty").json["sessions"]] == ["one"]
    resized = daemon.post("/process/pty/one/resize", {"cols": 120, "rows": 50})
    assert (resized.status, resized.json["cols"], resized.json["rows"]) == (200, 120, 50)
    deleted = daemon.ask("DELETE", "/process/pty/one")
    assert (deleted.status, deleted.json) == (200, {"message": "PTY session deleted"})
    assert daemon.get("/process/pty").json == {"sessions": []}
    assert daemon.get("/process/pty/one").status == 404


def test_an_id_is_made_up_where_none_is_sent(daemon: Daemon) -> None:
    answer = daemon.post("/process/pty", {})
    assert answer.status == 201
    assert daemon.get(f"/process/pty/{answer.json['sessionId']}").json["cols"] == 80


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"id": "."}, 400),
        ({"id": "a/b"}, 400),
        ({"id": "create-connect"}, 400),
        ({"id": "x" * 256}, 400),
        ({"id": 7}, 400),
        ({"cols": 1001}, 400),
        ({"rows": -1}, 400),
        ({"rows": 1.5}, 400),
        ({"cols": True}, 400),
        ({"envs": {"": "x"}}, 400),
        ({"envs": {"A=B": "x"}}, 400),
        ({"envs": {"A": "x\0"}}, 400),
        ({"envs": {"A": "x" * 200_000}}, 400),
        ({"envs": []}, 400),
        ({"cwd": "/no/such/directory"}, 400),
        (b"{", 400),
        (b"", 400),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_envelope_and_the_old_key(
    daemon: Daemon, body: Any, status: int
) -> None:
    answer = daemon.post("/process/pty", body)
    assert answer.status == status
    assert answer.json["error"] == answer.json["message"]
    assert answer.json["source"] == "DAYTONA_DAEMON"
    assert answer.json["code"] in ("BAD_REQUEST", "INVALID_REQUEST_BODY")


def test_a_second_one_with_the_same_id_is_a_conflict_before_the_upgrade(daemon: Daemon) -> None:
    assert daemon.post("/process/pty", {"id": "one"}).status == 201
    assert daemon.post("/process/pty", {"id": "one"}).status == 409
    status, body = refused(daemon, "/process/pty/create-connect?id=one")
    assert (status, body["code"]) == (409, "CONFLICT")


@pytest.mark.parametrize(
    ("query", "protocols"),
    [
        ("", ()),
        ("id=x&cols=many", ()),
        ("id=x&rows=1001", ()),
        ("id=x&cwd=/no/such", ()),
        ("id=x", ("X-Daytona-Pty-Envs~!!!",)),
        ("id=x", (envs_token([1]),)),
        ("id=x", (envs_token({"A": 1}),)),
        ("id=x", (envs_token({"A": "x" * 60_000}),)),
    ],
)
def test_create_connect_says_what_is_wrong_before_the_upgrade(
    daemon: Daemon, query: str, protocols: tuple[str, ...]
) -> None:
    status, body = refused(daemon, f"/process/pty/create-connect?{query}", protocols)
    assert (status, body["error"]) == (400, body["message"])
    assert daemon.get("/process/pty").json == {"sessions": []}


def test_connecting_to_an_unknown_terminal_is_a_404_before_the_upgrade(daemon: Daemon) -> None:
    assert refused(daemon, "/process/pty/nobody/connect")[0] == 404
    assert daemon.get("/process/pty/create-connect?id=x").status == 400, "a plain request is told that it is none"


def test_an_upgrade_that_is_none_leaves_no_terminal(daemon: Daemon) -> None:
    headers = {"Connection": "upgrade", "Upgrade": "websocket"}  # and no key
    assert daemon.ask("GET", "/process/pty/create-connect?id=t", headers=headers).status == 400
    assert daemon.get("/process/pty").json == {"sessions": []}


def test_there_is_a_limit_with_a_clear_error(daemon: Daemon) -> None:
    for number in range(256):
        assert daemon.post("/process/pty", {"id": f"t{number}", "lazyStart": True}).status == 201
    answer = daemon.post("/process/pty", {"id": "one-more"})
    assert (answer.status, answer.json["code"]) == (422, "UNPROCESSABLE_ENTITY")
    assert "256" in answer.json["message"]


# The conversation.


def test_connected_comes_first_and_exited_before_the_close(daemon: Daemon) -> None:
    screen = open_screen(daemon)
    assert screen.socket.subprotocol == EXIT
    assert screen.controls == [{"type": "control", "status": "connected"}]
    assert daemon.get("/process/pty/t").json["active"] is True
    screen.type("exit 0\n")
    screen.rest()
    assert screen.controls[1:] == [{"type": "control", "status": "exited", "exitCode": 0}]
    assert (screen.socket.close_code, json.loads(screen.socket.close_reason)) == (1000, {"exitCode": 0})
    assert daemon.get("/process/pty/t").status == 404


@pytest.mark.parametrize(
    ("typed", "code", "reason"),
    [
        ("exit 3\n", 3, "non-zero exit"),
        ("exit 130\n", 130, "Ctrl+C"),
        ("kill -9 $$\n", 137, "SIGKILL"),
        ("exec sh -c 'kill -TERM $$'\n", 143, "SIGTERM"),
        ("kill -HUP $$\n", 129, "signal 1"),
    ],
)
def test_codes_and_reasons_of_the_end(daemon: Daemon, typed: str, code: int, reason: str) -> None:
    screen = open_screen(daemon)
    screen.type(typed)
    screen.rest()
    assert screen.controls[-1] == {"type": "control", "status": "exited", "exitCode": code, "exitReason": reason}
    assert json.loads(screen.socket.close_reason) == {"exitCode": code, "exitReason": reason}


def test_a_client_that_does_not_know_exited_gets_the_close_only(daemon: Daemon) -> None:
    screen = open_screen(daemon, protocols=())
    assert screen.socket.subprotocol is None
    screen.type("exit 4\n")
    screen.rest()
    assert screen.controls == [{"type": "control", "status": "connected"}]
    assert json.loads(screen.socket.close_reason)["exitCode"] == 4


def test_just_one_offered_subprotocol_is_chosen(daemon: Daemon) -> None:
    version = "X-Daytona-SDK-Version~0.226.1"
    token = envs_token({"GREETING": "hi there"})
    for protocols, chosen in [((token, version, EXIT), EXIT), ((token, version), version), ((token,), token)]:
        with daemon.websocket(f"/process/pty/create-connect?id=p{len(protocols)}", protocols) as socket:
            assert socket.subprotocol == chosen


def test_variables_of_64_kib_come_in_a_subprotocol(daemon: Daemon) -> None:
    value = "v" * 45_000
    screen = open_screen(daemon, protocols=(EXIT, envs_token({"BIG": value, "DOTTED.name": "x"})))
    assert screen.run('echo ${#BIG} $TERM "$LANG"') == b"45000 xterm-256color C.UTF-8\r\n"
    assert daemon.get("/process/pty/t").json["envs"]["BIG"] == value


def test_several_clients_see_the_same_and_may_all_type(daemon: Daemon, screen: Screen) -> None:
    second, third = connect(daemon), connect(daemon, protocols=())
    second.type(b"echo from-second\n")
    for each in (screen, second, third):
        each.until(b"from-second\r\n")
    third.type("echo from-third; exit 5\n")
    for each in (screen, second, third):
        each.rest()
        assert b"from-third" in each.seen
        assert json.loads(each.socket.close_reason)["exitCode"] == 5


def test_a_terminal_outlives_its_client(daemon: Daemon, screen: Screen) -> None:
    screen.type("HERE=still\n")
    screen.run("true")
    screen.socket.cut()
    again = connect(daemon)
    again.type("echo $HERE\n")
    again.until(b"still\r\n")


# The program's side: a real terminal.


def test_it_is_a_real_terminal_with_a_size_from_the_start(daemon: Daemon) -> None:
    screen = open_screen(daemon, query="&cols=132&rows=43&cwd=/usr")
    shown = screen.run("stty size; pwd; test -t 0 && test -t 1 && test -t 2 && echo tty; tty; shopt login_shell")
    assert shown.startswith(b"43 132\r\n/usr\r\ntty\r\n/dev/pts/")
    assert shown.endswith(b"on\r\n")
    assert screen.run("ps -o pid=,sid=,tpgid= -p $$ | awk '{print ($1==$2)}'") == b"1\r\n"


def test_a_resize_is_told_to_the_program(daemon: Daemon, screen: Screen) -> None:
    screen.type("trap 'echo winch; stty size' WINCH; echo set\n")
    screen.until(b"set\r\n")
    assert daemon.post("/process/pty/t/resize", {"cols": 101, "rows": 31}).status == 200
    screen.type("\n")
    screen.until(b"winch\r\n31 101\r\n")


def test_job_control_works(daemon: Daemon, screen: Screen) -> None:
    screen.type("cat\n")
    eventually(lambda: running(daemon, "cat"))
    screen.type("echoed\n")
    screen.until(b"echoed\r\n")
    screen.type(b"\x1a")  # Ctrl-Z
    screen.until(b"Stopped")
    assert b"cat" in screen.run("jobs")
    screen.type("fg\n")
    screen.until(b"cat\r\n")
    screen.type("again\n")
    screen.until(b"again\r\n")
    screen.type(b"\x03")  # Ctrl-C
    assert screen.run("echo $?").endswith(b"130\r\n")


def test_nothing_of_the_daemon_is_inherited(screen: Screen) -> None:
    assert screen.run("ls /proc/self/fd | wc -l").strip() == b"4"
    assert b"socket" not in screen.run("ls -l /proc/$$/fd")


def test_deleting_ends_everything_it_ever_started(daemon: Daemon, screen: Screen) -> None:
    screen.run("setsid -f sleep 1000; (setsid sleep 1001 &); nohup sleep 1002 >/dev/null 2>&1 & sleep 1003 & true")
    eventually(lambda: len(tree(daemon)) >= 6)
    assert daemon.ask("DELETE", "/process/pty/t").status == 200
    assert tree(daemon) == []
    screen.rest()
    assert screen.controls[-1]["exitCode"] == 137
    assert json.loads(screen.socket.close_reason) == {"exitCode": 137, "exitReason": "SIGKILL"}


def test_stopping_the_daemon_ends_terminals_and_what_they_left_behind(start_daemon: Starter) -> None:
    daemon = start_daemon()
    first, second = open_screen(daemon, "first"), open_screen(daemon, "second")
    first.run("setsid -f sleep 1000")
    first.type("exit\n")
    first.rest()
    processes = eventually(lambda: tree(daemon))
    daemon.process.terminate()
    second.rest()
    assert daemon.process.wait(10) == 0
    assert not [pid for pid in processes if lives(pid)]


def test_a_lazy_terminal_starts_with_its_first_client(daemon: Daemon) -> None:
    assert daemon.post("/process/pty", {"id": "t", "lazyStart": True, "cols": 90, "rows": 30}).status == 201
    info = daemon.get("/process/pty/t").json
    assert (info["active"], info["lazyStart"]) == (False, True)
    assert tree(daemon) == []
    assert daemon.post("/process/pty/t/resize", {"cols": 91, "rows": 31}).status == 200
    assert b"31 91\r\n" in connect(daemon).run("stty size")
    assert daemon.get("/process/pty/t").json["active"] is True
    assert daemon.post("/process/pty", {"id": "u", "lazyStart": True}).status == 201
    assert daemon.ask("DELETE", "/process/pty/u").status == 200
    assert daemon.get("/process/pty/u").status == 404


# Floods, stalls and other hard times. Those with a number are defects of the original (toolbox-daemon.md 17.3).


def test_d27_everything_written_before_the_end_arrives_before_exited(daemon: Daemon) -> None:
    for number in range(20):
        screen = open_screen(daemon, f"t{number}")
        screen.type("seq 1 20000; exit 7\n")
        screen.rest()
        assert screen.seen.startswith(b"1\r\n2\r\n")
        assert b"\r\n19999\r\n20000\r\n" in screen.seen[-100:]
        assert screen.controls[-1]["exitCode"] == 7


def test_d27_output_of_a_helper_that_holds_the_terminal_still_arrives(daemon: Daemon) -> None:
    screen = open_screen(daemon)
    screen.type("(trap '' HUP; for i in 1 2 3; do sleep 0.1; echo late$i; done; sleep 1000) & exit 0\n")
    screen.rest()
    assert b"late3\r\n" in screen.seen
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
    files = eventually(lambda: open_files(daemon))
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
    assert tree(daemon) == []
    eventually(lambda: open_files(daemon) <= files)
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
    screen.type("stty raw; head -c 1048576 | cksum; stty sane; stty -echo; printf 'd%s\\n' one\n")
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


def memory(daemon: Daemon, field: str) -> str:
    lines = Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(field))


def running(daemon: Daemon, name: str) -> list[int]:
    """The processes of this name below the daemon."""
    found = []
    for pid in tree(daemon):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text() == f"{name}\n":
                found.append(pid)
    return found


def held_back(daemon: Daemon) -> bool:
    """Whether `seq` waits for the terminal to take more."""
    return any("\nState:\tS" in Path(f"/proc/{pid}/status").read_text() for pid in running(daemon, "seq"))
