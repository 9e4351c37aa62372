"""The defects of the original daemon's sessions, one test each or more, that fail on its behaviour."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sandyard_daemon.wire import Stream
from tests.daemon.conftest import Daemon, Starter, eventually
from tests.daemon.processes import children_of, is_alive


@pytest.mark.parametrize(
    ("command", "code"),
    [("echo out; exit 3", 3), ("set -e; echo out; false", 1), ("echo out; exec sh -c 'exit 9'", 9)],
)
def test_d01_a_command_that_ends_the_shell_has_its_status_at_once(daemon: Daemon, command: str, code: int) -> None:
    daemon.session()
    answer = daemon.run(command)
    assert (answer["exitCode"], answer["stdout"]) == (code, "out\n")
    again = daemon.post("/process/session/s/exec", {"command": "echo again"})
    assert (again.status, again.json["code"]) == (410, "SESSION_ENDED")


def test_d01_a_dead_shell_fails_what_was_queued_and_ends_every_follower(daemon: Daemon) -> None:
    daemon.session()
    running = daemon.start("read line; kill -9 $$")
    queued = [daemon.start("echo never") for _ in range(3)]
    follower = daemon.follow(running)
    daemon.post(f"/process/session/s/command/{running}/input", {"data": "go"})
    assert daemon.finish(running) == 137
    assert follower.rest()[-1].stream is Stream.END
    for command in queued:
        assert daemon.finish(command) != 0
        assert b"ended" in daemon.log(command)
    assert daemon.get("/process/session/s").json["commands"][0]["exitCode"] == 137


def test_d01_the_exit_code_of_a_dead_shell_is_there_within_50_ms(daemon: Daemon) -> None:
    taken = []
    for session in "abcde":
        daemon.session(session)
        command = daemon.start("read line; exit 7", session)
        daemon.post(f"/process/session/{session}/command/{command}/input", {"data": "go"})
        began = time.monotonic()
        assert daemon.finish(command, session) == 7
        taken.append(time.monotonic() - began)
    assert min(taken) < 0.5  # 50 ms on a quiet machine


@pytest.mark.parametrize(
    "command", ["sleep 600 & echo $!", "sleep 600 >/dev/null & echo $!", "sleep 600 2>/dev/null & echo $!"]
)
def test_d02_a_background_child_holding_a_stream_does_not_delay_the_end(daemon: Daemon, command: str) -> None:
    daemon.session()
    assert is_alive(int(daemon.run(command)["stdout"]))


def test_d02_late_output_is_in_later_reads_and_does_not_kill_its_writer(daemon: Daemon) -> None:
    daemon.session()
    os.mkfifo(daemon.home / "gate")
    answer = daemon.run("(read line < gate; echo late; echo done > finished) & echo now")
    assert answer["stdout"] == "now\n"
    (daemon.home / "gate").write_text("go\n")
    eventually(lambda: daemon.log(answer["cmdId"]) == b"now\nlate\n")
    eventually((daemon.home / "finished").exists)


def test_d03_wait_waits_for_the_users_jobs_only(daemon: Daemon) -> None:
    daemon.session()
    assert daemon.run("wait; echo one")["stdout"] == "one\n"
    assert daemon.run("sleep 0.1 & wait; echo two; jobs")["stdout"] == "two\n"
    command = daemon.start("wait; echo three")
    assert daemon.finish(command) == 0


def test_d04_no_helper_process_is_left_by_commands(daemon: Daemon) -> None:
    daemon.session()
    for _ in range(10):
        daemon.finish(daemon.start("echo x"))
    (supervisor,) = children_of(daemon.process.pid)
    (shell,) = children_of(supervisor)
    assert children_of(shell) == []


def test_d11_tight_polling_sees_no_exit_code_or_a_whole_one(daemon: Daemon) -> None:
    daemon.session()
    for _ in range(20):
        command = daemon.start("exit_with() { return 42; }; exit_with")
        for _ in range(200):
            answer = daemon.get(f"/process/session/s/command/{command}")
            assert answer.status == 200
            assert answer.json.get("exitCode") in (None, 42)
            if "exitCode" in answer.json:
                break


def test_d12_a_thousand_commands_queue_without_blocking(daemon: Daemon) -> None:
    daemon.session()
    gate = daemon.start("read line")
    commands = [daemon.start(f"echo {number}; N=$((N+1))") for number in range(1000)]
    assert daemon.exit_code(commands[0]) is None
    daemon.post(f"/process/session/s/command/{gate}/input", {"data": "go"})
    assert daemon.finish(commands[-1]) == 0
    assert daemon.run("echo $N")["stdout"] == "1000\n"
    listed = daemon.get("/process/session/s").json["commands"]
    assert [command["id"] for command in listed[1:1001]] == commands


def test_d12_input_waits_for_a_queued_command_and_is_gone_for_a_finished_one(daemon: Daemon) -> None:
    daemon.session()
    first = daemon.start("read line")
    second = daemon.start("read line; echo got $line")
    path = f"/process/session/s/command/{second}/input"
    assert daemon.post(path, {"data": "early"}).status == 204
    assert daemon.post(f"/process/session/s/command/{first}/input", {"data": "x"}).status == 204
    assert daemon.finish(second) == 0
    assert daemon.log(second) == b"early\ngot early\n"
    over = daemon.post(path, {"data": "late"})
    assert (over.status, over.json["code"]) == (410, "COMMAND_ALREADY_COMPLETED")


def test_d12_a_megabyte_of_unread_input_does_not_block(daemon: Daemon) -> None:
    daemon.session()
    os.mkfifo(daemon.home / "gate")
    command = daemon.start("read go < gate; wc -c", suppressInputEcho=True)
    path = f"/process/session/s/command/{command}/input?raw=true"
    assert daemon.post(path, {"data": "x" * 1_000_000}).status == 204, "though nobody opens the gate to its reader"
    too_much = daemon.post(path, {"data": "x" * 5_000_000})
    assert too_much.status == 400


def test_d12_raw_input_is_sent_exactly(daemon: Daemon) -> None:
    daemon.session()
    command = daemon.start("head -c 3 | od -An -c", suppressInputEcho=True)
    path = f"/process/session/s/command/{command}/input?raw=true"
    daemon.post(path, {"data": "ab"})
    daemon.post(path, {"data": "c"})
    assert daemon.finish(command) == 0
    assert daemon.log(command).split() == [b"a", b"b", b"c"]


def test_d12_a_client_that_goes_away_leaves_its_command_running(daemon: Daemon) -> None:
    daemon.session()
    body = b'{"command": "echo begun; read line < gate; echo ended"}'
    os.mkfifo(daemon.home / "gate")
    connection = daemon.raw_post("/process/session/s/exec", body)
    (command,) = eventually(lambda: daemon.get("/process/session/s").json["commands"])
    connection.close()
    with open(daemon.home / "gate", "w") as gate:
        gate.write("go\n")
    assert daemon.finish(command["id"]) == 0
    assert daemon.log(command["id"]) == b"begun\nended\n"


def test_d14_nothing_of_ours_is_in_the_users_shell(daemon: Daemon) -> None:
    daemon.session()
    daemon.run("log=1 dir=2 sp=3 ep=4 ip=5 r1=6 r2=7 ip_pid=8 _ec=9; cleanup() { echo mine; }; trap 'echo bye' TERM")
    answer = daemon.run("echo $log $dir $sp $ep $ip $r1 $r2 $ip_pid $_ec; cleanup; trap")
    assert answer["stdout"].splitlines()[:2] == ["1 2 3 4 5 6 7 8 9", "mine"]
    assert "trap -- 'echo bye' SIGTERM" in answer["stdout"]
    everything = daemon.run("set; alias; declare -F; ls -l /proc/self/fd")["stdout"].lower()
    assert "sandyard_" not in everything
    assert daemon.run("ls /proc/self/fd | wc -l")["stdout"].strip() == "4"


def test_d14_the_last_status_is_seen_by_the_next_command(daemon: Daemon) -> None:
    daemon.session()
    daemon.run("(exit 42)")
    assert daemon.run("echo $?")["stdout"] == "42\n"
    assert daemon.run("echo $?")["stdout"] == "0\n"
    daemon.run("trap 'echo error >> errors' ERR; (exit 9) || true; return 5")
    daemon.run("trap - ERR")
    assert not (daemon.home / "errors").exists() or (daemon.home / "errors").read_text() == "error\n"


def test_d14_the_shell_does_not_ignore_sigterm(daemon: Daemon) -> None:
    daemon.session()
    ignored = int(daemon.run("grep SigIgn /proc/$$/status")["stdout"].split()[-1], 16)
    assert not ignored & 1 << signal.SIGTERM - 1


@pytest.mark.parametrize(
    "session_id", ["..", ".", "../../x", "a/b", "a\\b", "", "line\nbreak", "x" * 300, "entrypoint"]
)
def test_d15_ids_that_are_no_names_are_refused(daemon: Daemon, session_id: str) -> None:
    assert daemon.post("/process/session", {"sessionId": session_id}).status == 400


def test_d15_an_id_is_never_shell_text_or_a_path(daemon: Daemon) -> None:
    name = '$(touch owned)`touch owned`";touch owned;"'
    daemon.session(name)
    answer = daemon.post(
        "/process/session/%24%28touch%20owned%29%60touch%20owned%60%22%3Btouch%20owned%3B%22/exec",
        {"command": "echo ok"},
    )
    assert answer.json["stdout"] == "ok\n"
    assert not (daemon.home / "owned").exists()


def test_d15_of_two_equal_creates_one_wins(daemon: Daemon) -> None:
    def create(_: int) -> int:
        body = b'{"sessionId": "same"}'
        with daemon.raw_post("/process/session", body) as connection:
            return int(connection.recv(4096).split()[1])

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(create, range(16))) == [201] + [409] * 15


def test_d16_sessions_and_commands_are_listed_in_creation_order(daemon: Daemon) -> None:
    names = [f"session-{number}" for number in (5, 3, 9, 1)]
    for name in names:
        daemon.session(name)
    assert [session["sessionId"] for session in daemon.get("/process/session").json] == names
    texts = [f"echo {number}" for number in range(20)]
    for text in texts:
        daemon.run(text, "session-9")
    assert [command["command"] for command in daemon.get("/process/session/session-9").json["commands"]] == texts


def test_d17_a_shell_is_bash_whatever_else_is_installed_and_preferred(start_daemon: Starter, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("zsh", "fish"):
        (programs / name).write_text(f"#!/bin/sh\ntouch {programs}/{name}.ran\nexit 3\n")
        (programs / name).chmod(0o755)
    daemon = start_daemon(PATH=f"{programs}:{os.environ['PATH']}", SHELL=str(programs / "zsh"))
    for name in (".zshenv", ".bashrc", ".bash_profile", ".profile"):
        (daemon.home / name).write_text("cat > $HOME/eaten; exit 4\n")
    daemon.session()
    told = "echo ${BASH_VERSION:+bash}; read line || echo no input"
    assert daemon.execute(told).json == {"exitCode": 0, "result": "bash\nno input\n"}
    assert daemon.run("echo ${BASH_VERSION:+bash}; true")["stdout"] == "bash\n"
    assert daemon.run("echo next")["stdout"] == "next\n"
    assert not (daemon.home / "eaten").exists()
    assert not list(programs.glob("*.ran"))


def test_d39_deleting_a_session_kills_all_it_ever_started(daemon: Daemon) -> None:
    daemon.session()
    daemon.run(
        "sleep 100 & echo $! >> pids; nohup sleep 100 >/dev/null 2>&1 & echo $! >> pids;"
        "setsid sh -c 'echo $$ >> pids; sleep 100' & (setsid sh -c 'echo $$ >> pids; sleep 100' &);"
        'sh -c \'(trap "" TERM HUP; echo $$ > /dev/null; sh -c "echo \\$\\$ >> pids; sleep 100; sleep 100") &\''
    )
    written = daemon.home / "pids"
    written.touch()
    pids = eventually(lambda: (lines := written.read_text().split()) and len(lines) == 5 and lines)
    assert daemon.ask("DELETE", "/process/session/s").status == 204
    assert [pid for pid in pids if is_alive(int(pid))] == []
    assert daemon.get("/process/session/s").status == 404


def test_d39_deleting_an_ordinary_session_takes_no_time(daemon: Daemon) -> None:
    taken = []
    for session in "abcde":
        daemon.session(session)
        follower = daemon.follow(daemon.start("sleep 100", session), session)
        began = time.monotonic()
        assert daemon.ask("DELETE", f"/process/session/{session}").status == 204
        taken.append(time.monotonic() - began)
        follower.close()
    assert min(taken) < 1.5  # and not the two seconds that processes have which do not end when asked


def test_d39_a_synchronous_exec_of_a_deleted_session_is_told(daemon: Daemon) -> None:
    daemon.session()
    results = []
    other = daemon.client()
    thread = threading.Thread(
        target=lambda: results.append(other.post("/process/session/s/exec", {"command": "sleep 100"}))
    )
    thread.start()
    eventually(lambda: daemon.get("/process/session/s").json["commands"])
    daemon.ask("DELETE", "/process/session/s")
    thread.join(60)
    assert (results[0].status, results[0].json["code"]) == (410, "SESSION_ENDED")


def test_d39_shutdown_ends_all_sessions_side_by_side(start_daemon: Starter) -> None:
    # One after the other, all but the last would be killed before the next is asked, and not see that all were.
    patience = {"service.SHUTDOWN_SECONDS": 600, "sessions.supervisor._USUAL_ENDING": ((15, 20), (9, 20))}
    daemon = start_daemon(constants={f"sandyard_daemon.{name}": value for name, value in patience.items()})
    when_asked = "echo >> asked; until [ $(wc -l < asked) = 5 ]; do sleep 0.01; done; echo >> together; exit"
    for number in range(5):
        daemon.session(f"s{number}")
        daemon.start(f"trap '{when_asked}' TERM; echo $$ >> pids; while :; do sleep 1; done", f"s{number}")
    written = daemon.home / "pids"
    written.touch()
    pids = eventually(lambda: (lines := written.read_text().split()) and len(lines) == 5 and lines)
    daemon.process.terminate()
    assert daemon.process.wait(120) == 0
    assert (daemon.home / "together").read_text() == "\n" * 5
    eventually(lambda: not [pid for pid in pids if is_alive(int(pid))])
    assert list((daemon.home / ".sandyard").iterdir()) == []
