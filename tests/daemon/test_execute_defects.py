"""The defects of the original daemon's one-shot commands, errors and door, one test each or more."""

import contextlib
import os
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from sandyard_daemon.wire import DOOR_HEADER
from tests.daemon.conftest import SECRET, Daemon, cut_off, eventually
from tests.daemon.processes import is_alive


def test_d13_errors_have_a_status_a_code_and_a_body(daemon: Daemon) -> None:
    daemon.session()
    cases: list[tuple[Callable[[], object], int, str]] = [
        (lambda: daemon.post("/process/session/none/exec", {"command": "x"}), 404, "NOT_FOUND"),
        (lambda: daemon.post("/process/session", {"sessionId": "s"}), 409, "CONFLICT"),
        (lambda: daemon.post("/process/session", b"{"), 400, "INVALID_REQUEST_BODY"),
        (lambda: daemon.post("/process/session", {}), 400, "INVALID_REQUEST_BODY"),
        (lambda: daemon.post("/process/session/s/exec", {"command": " "}), 400, "INVALID_REQUEST_BODY"),
        (lambda: daemon.post("/process/session/entrypoint/exec", {"command": "x"}), 400, "BAD_REQUEST"),
        (lambda: daemon.get("/process/session/s/command/none"), 404, "NOT_FOUND"),
        (lambda: daemon.get("/process/session/s/command/none/logs"), 404, "NOT_FOUND"),
        (lambda: daemon.post("/process/session/s/command/none/input", {"data": "x"}), 404, "NOT_FOUND"),
        (lambda: daemon.ask("DELETE", "/process/session/none"), 404, "NOT_FOUND"),
        (lambda: daemon.get("/nowhere"), 404, "NOT_FOUND"),
        (lambda: daemon.ask("PATCH", "/version"), 405, "BAD_REQUEST"),
    ]
    for ask, status, code in cases:
        answer = ask()
        assert answer.status == status, answer.body  # type: ignore[attr-defined]
        body = answer.json  # type: ignore[attr-defined]
        assert (body["statusCode"], body["code"], body["source"]) == (status, code, "DAYTONA_DAEMON")
        assert body["message"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", body["timestamp"])
        assert body["path"].startswith("/")


def test_d18_execute_returns_when_its_shell_does(daemon: Daemon) -> None:
    answer = daemon.execute("(sleep 600; echo no) & echo yes; echo $! > pid")
    assert answer.json == {"exitCode": 0, "result": "yes\n"}
    pid = int((daemon.home / "pid").read_text())
    assert is_alive(pid)
    os.kill(pid, signal.SIGKILL)


def test_d18_a_background_server_may_go_on_writing(daemon: Daemon) -> None:
    os.mkfifo(daemon.home / "gate")
    daemon.execute("(read line < gate; echo some output; echo survived > proof) &")
    (daemon.home / "gate").write_text("go\n")
    eventually((daemon.home / "proof").exists)


def test_d18_a_timeout_tells_what_was_written_so_far(daemon: Daemon) -> None:
    answer = cut_off(
        lambda seconds: daemon.execute("echo begun; sleep 600", timeout=seconds), lambda answer: "begun" in answer.text
    )
    assert (answer.status, answer.json["code"]) == (408, "PROCESS_EXECUTION_TIMEOUT")
    assert "timeout" in answer.json["message"]
    assert "begun" in answer.json["message"]
    assert answer.json["details"]["output"] == "begun\n"


def test_d18_a_timeout_kills_the_whole_process_group(daemon: Daemon) -> None:
    command, pid = "sleep 600 & echo $! > pid; wait", daemon.home / "pid"
    cut_off(lambda seconds: daemon.execute(command, timeout=seconds), lambda _: pid.exists() and pid.read_text())
    eventually(lambda: not is_alive(int(pid.read_text())))


def test_d18_death_by_a_signal_is_128_plus_its_number(daemon: Daemon) -> None:
    assert daemon.execute("kill -TERM $$").json["exitCode"] == 143
    assert daemon.execute("sh -c 'kill -9 $$'").json["exitCode"] == 137


def test_d18_a_client_that_goes_away_takes_its_execute_along(daemon: Daemon) -> None:
    body = b'{"command": "echo $$ > pid; sleep 30"}'
    connection = daemon.raw_post("/process/execute", body)
    pid = int(eventually(lambda: (daemon.home / "pid").exists() and (daemon.home / "pid").read_text()))
    connection.shutdown(socket.SHUT_RDWR)
    connection.close()
    eventually(lambda: not is_alive(pid))


def test_d18_endless_output_is_kept_to_a_limit(daemon: Daemon) -> None:
    answer = daemon.execute("head -c 50000000 /dev/zero | tr '\\0' x")
    assert answer.json["exitCode"] == 0
    assert answer.json["result"].endswith(f"[output truncated: {50_000_000 - (32 << 20)} more bytes were not kept]\n")


def test_d19_the_command_is_not_its_own_input(daemon: Daemon) -> None:
    assert daemon.execute("read x; echo after; cat; echo end").json["result"] == "after\nend\n"
    assert daemon.execute("cat <<E\nheredoc\nE\n").json["result"] == "heredoc\n"


def test_d19_a_command_longer_than_an_argument_may_be_runs(daemon: Daemon) -> None:
    assert daemon.execute("x=" + "y" * 500_000 + "; echo ${#x}").json["result"] == "500000\n"


def test_d20_binary_output_is_marked_in_text_and_exact_in_base64(daemon: Daemon) -> None:
    assert daemon.execute("printf 'a\\377b'").json["result"] == "a\ufffdb"
    daemon.session()
    command = daemon.run("printf 'a\\377b'")["cmdId"]
    page = daemon.get(f"/process/session/s/command/{command}/logs?encoding=base64").json
    assert page["frames"][0]["data"] == "Yf9i"


def test_d38_the_only_way_in_is_the_door_and_it_asks_for_the_secret(daemon: Daemon) -> None:
    daemon.session()
    daemon.run("true")
    held = set()
    for descriptor in Path(f"/proc/{daemon.process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            held.add(str(descriptor.readlink()))
    tables = [Path(f"/proc/{daemon.process.pid}/net/{name}") for name in ("tcp", "tcp6", "udp", "udp6")]
    rows = [line.split() for table in tables if table.exists() for line in table.read_text().splitlines()[1:]]
    assert [name for name in held if name.startswith("socket:")], "the door itself is a socket"
    assert [row[1] for row in rows if f"socket:[{row[9]}]" in held] == []
    assert daemon.get("/process/session", **{DOOR_HEADER: "guess"}).status == 401


def test_d38_no_command_sees_the_secret(daemon: Daemon) -> None:
    daemon.session()
    assert SECRET not in daemon.run("env")["stdout"] + daemon.execute("env").json["result"]
