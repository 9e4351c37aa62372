"""Terminals over the door: one shell, several clients, and every end told."""

import json
from typing import Any

import pytest

from tests.contract.wire_client import Refused
from tests.daemon.conftest import Daemon, Starter, eventually
from tests.daemon.processes import is_alive
from tests.daemon.terminal.screens import EXIT, Screen, connect, envs_token, open_screen, running, tree


def refused(daemon: Daemon, path: str, protocols: tuple[str, ...] = ()) -> tuple[int, dict[str, Any]]:
    with pytest.raises(Refused) as caught:
        daemon.websocket(path, protocols)
    return caught.value.status, json.loads(caught.value.body)


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
    assert (deleted.status, deleted.json) == (200, {}), "Go takes only objects for its values"
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
    screen.type("PS1='pro''mpt '\n")
    screen.until(b"prompt ")
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
    screen.type(b"\x03")  # Ctrl-C, which also throws away what was typed behind it
    screen.until(b"prompt ")
    assert screen.run("echo $?").endswith(b"130\r\n")


def test_nothing_of_the_daemon_is_inherited(screen: Screen) -> None:
    assert screen.run("ls /proc/self/fd | wc -l").strip() == b"4"
    assert b"socket" not in screen.run("ls -l /proc/$$/fd")


def test_deleting_ends_everything_it_ever_started(daemon: Daemon, screen: Screen) -> None:
    screen.run("setsid -f sleep 1000; (setsid sleep 1001 &); nohup sleep 1002 >/dev/null 2>&1 & sleep 1003 & true")
    eventually(lambda: len(tree(daemon)) >= 6)
    assert daemon.ask("DELETE", "/process/pty/t").status == 200
    eventually(lambda: tree(daemon) == [])
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
    assert daemon.process.wait(60) == 0
    # The daemon waits for them, though not for ever: what is slow to end goes on ending behind it.
    eventually(lambda: not [pid for pid in processes if is_alive(pid)])


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
