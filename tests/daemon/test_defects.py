"""The defects of the original daemon's sessions and logs, one test each or more, that fail on its behaviour."""

import contextlib
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sandyard_daemon.wire import DOOR_HEADER, EXIT_CODE, Stream
from sandyard_daemon.wire.markers import MAX_MESSAGE, MarkerEncoder, demultiplex
from tests.daemon.conftest import SECRET, Daemon, Starter, eventually

OLD = "0.100.0"


def children_of(pid: int) -> list[int]:
    """The direct children of a process."""
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                stat = (directory / "stat").read_bytes()
            except OSError:
                continue
            if int(stat.rpartition(b")")[2].split()[1]) == pid:
                found.append(int(directory.name))
    return found


def is_alive(pid: int) -> bool:
    try:
        return b"Z" != (Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0])
    except OSError:
        return False


@pytest.mark.parametrize(
    ("command", "code"),
    [("echo out; exit 3", 3), ("set -e; echo out; false", 1), ("echo out; exec sh -c 'exit 9'", 9)],
)
def test_d01_a_command_that_ends_the_shell_has_its_status_at_once(daemon: Daemon, command: str, code: int) -> None:
    daemon.session()
    began = time.monotonic()
    answer = daemon.run(command)
    assert (answer["exitCode"], answer["stdout"]) == (code, "out\n")
    assert time.monotonic() - began < 2
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
    daemon.session()
    command = daemon.start("read line; exit 7")
    daemon.post(f"/process/session/s/command/{command}/input", {"data": "go"})
    began = time.monotonic()
    assert daemon.finish(command) == 7
    assert time.monotonic() - began < 0.5  # 50 ms on a quiet machine


@pytest.mark.parametrize(
    "command", ["sleep 30 & echo x", "sleep 30 >/dev/null & echo x", "sleep 30 2>/dev/null & echo x"]
)
def test_d02_a_background_child_holding_a_stream_does_not_delay_the_end(daemon: Daemon, command: str) -> None:
    daemon.session()
    began = time.monotonic()
    assert daemon.run(command)["stdout"] == "x\n"
    assert time.monotonic() - began < 5


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
    began = time.monotonic()
    assert daemon.run("wait; echo one")["stdout"] == "one\n"
    assert daemon.run("sleep 0.1 & wait; echo two; jobs")["stdout"] == "two\n"
    assert time.monotonic() - began < 5
    command = daemon.start("wait; echo three")
    assert daemon.finish(command) == 0


def test_d04_no_helper_process_is_left_by_commands(daemon: Daemon) -> None:
    daemon.session()
    for _ in range(10):
        daemon.finish(daemon.start("echo x"))
    (supervisor,) = children_of(daemon.process.pid)
    (shell,) = children_of(supervisor)
    assert children_of(shell) == []


def test_d05_a_prompt_without_newline_is_seen_at_once(daemon: Daemon) -> None:
    daemon.session()
    command = daemon.start("printf 'name? '; read name; printf 'hello %s' \"$name\"", suppressInputEcho=True)
    frames = daemon.follow(command).frames()
    assert next(frames).payload == b"name? "
    daemon.post(f"/process/session/s/command/{command}/input", {"data": "you"})
    assert next(frames).payload == b"hello you"
    assert daemon.finish(command) == 0
    assert daemon.log(command) == b"name? hello you"


def test_d05_every_byte_is_kept_and_none_is_added(daemon: Daemon) -> None:
    daemon.session()
    data = bytes(range(256)) * 300 + b"\0\0no newline"
    (daemon.home / "data").write_bytes(data)
    command = daemon.start("cat data; cat data >&2")
    daemon.finish(command)
    assert daemon.streams(command) == (data, data)


def test_d06_no_message_splits_a_marker_or_a_character_or_is_too_long() -> None:
    encoder = MarkerEncoder()
    text = ("line of text äöü €" * 20_000).encode()
    messages: list[bytes] = []
    for start in range(0, len(text), 9_999):
        messages += encoder.feed(Stream.STDOUT, text[start : start + 9_999])
        messages += encoder.feed(Stream.STDERR, b"e\n")
    messages += encoder.flush()
    for message in messages:
        assert len(message) <= MAX_MESSAGE
        assert message[:3] in (b"\1\1\1", b"\2\2\2")
        message.lstrip(b"\1\2").decode()  # whole characters
    assert demultiplex(messages)[0] == text


def test_d07_long_lines_on_both_streams_do_not_mix(daemon: Daemon) -> None:
    daemon.session()
    loop = "for i in $(seq 18); do printf '%09000d\\n'"
    command = daemon.start(f"({loop} 0; done) & ({loop} 1; done) >&2; wait")
    daemon.finish(command)
    stdout, stderr = daemon.streams(command)
    assert stdout == (b"0" * 9000 + b"\n") * 18
    assert stderr == (b"0" * 8999 + b"1\n") * 18


def test_d07_marker_bytes_in_output_do_not_switch_streams(daemon: Daemon) -> None:
    daemon.session()
    command = daemon.start("printf 'a\\001\\001\\001\\001b\\002\\002\\002c\\002'; printf '\\002\\002\\002\\001' >&2")
    daemon.finish(command)
    logs = f"/process/session/s/command/{command}/logs"
    marked = daemon.get(logs, X_Daytona_SDK_Version=OLD).body
    expected = (b"a\1\1\1\1b\2\2\2c\2", b"\2\2\2\1")
    assert demultiplex([marked]) == expected == daemon.streams(command)


def test_d08_a_follower_of_an_empty_log_is_ended(daemon: Daemon) -> None:
    daemon.session()
    command = daemon.start("read line")
    follower = daemon.follow(command)
    daemon.post(f"/process/session/s/command/{command}/input", {"data": "x", "suppressInputEcho": True})
    (*_, last) = follower.rest()
    assert last.stream is Stream.END
    empty = daemon.run("true")["cmdId"]
    assert [frame.stream for frame in daemon.follow(empty).rest()] == [Stream.END]


def test_d08_a_slow_reader_gets_the_last_chunk(daemon: Daemon) -> None:
    daemon.session()
    command = daemon.start("head -c 8000000 /dev/zero; printf end")
    follower = daemon.follow(command)
    assert daemon.finish(command) == 0  # all of it is there before this reader reads at all
    frames = follower.rest()
    data = b"".join(frame.payload for frame in frames if frame.stream is not Stream.END)
    assert len(data) == 8_000_003
    assert data.endswith(b"end")


def test_d09_following_gives_what_the_snapshot_has_and_ends_with_the_command(daemon: Daemon) -> None:
    daemon.session()
    command = daemon.start("for i in $(seq 3000); do echo out $i; echo err $i >&2; done; exit 4")
    frames = daemon.follow(command).rest()
    *data, end = frames
    assert (end.stream, EXIT_CODE.unpack(end.payload)) == (Stream.END, (4,))
    position = 0
    for frame in data:
        assert frame.offset == position
        position += len(frame.payload)
    assert end.offset == position
    assert b"".join(frame.payload for frame in data) == daemon.log(command)
    assert daemon.exit_code(command) == 4


def test_d09_a_follower_learns_of_the_end_without_delay(daemon: Daemon) -> None:
    daemon.session()
    delays = []
    for _ in range(9):
        command = daemon.start("read line; date +%s%N")
        follower = daemon.follow(command)
        daemon.post(f"/process/session/s/command/{command}/input", {"data": "go"})
        text = b"".join(frame.payload for frame in follower.rest() if frame.stream is Stream.STDOUT)
        delays.append(time.time_ns() - int(text.split()[-1]))
    assert sorted(delays)[4] < 0.3e9  # a few ms on a quiet machine, over a second in the original


def test_d10_capture_keeps_up_with_fast_programs(daemon: Daemon) -> None:
    daemon.session()
    began = time.monotonic()
    command = daemon.start("head -c 100000000 /dev/zero")
    assert daemon.finish(command, seconds=30) == 0
    assert time.monotonic() - began < 4  # 25 MB/s on a machine that is busy otherwise; the original needs a minute
    assert daemon.get(f"/_daemon/logs/s/{command}?head").json["size"] == 100_000_000


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
    began = time.monotonic()
    commands = [daemon.start(f"echo {number}; N=$((N+1))") for number in range(1000)]
    assert time.monotonic() - began < 20
    assert daemon.exit_code(commands[0]) is None
    daemon.post(f"/process/session/s/command/{gate}/input", {"data": "go"})
    assert daemon.finish(commands[-1], seconds=40) == 0
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
    command = daemon.start("read go < /dev/null; sleep 0.3; wc -c", suppressInputEcho=True)
    path = f"/process/session/s/command/{command}/input?raw=true"
    began = time.monotonic()
    assert daemon.post(path, {"data": "x" * 1_000_000}).status == 204
    assert time.monotonic() - began < 2
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


def test_d16_a_log_is_capped_and_says_so(start_daemon: Starter) -> None:
    daemon = start_daemon("--log-cap", "100000")
    daemon.session()
    command = daemon.start("head -c 5000000 /dev/zero; echo last")
    assert daemon.finish(command) == 0
    head = daemon.get(f"/_daemon/logs/s/{command}?head").json
    assert head["dropped"] == 5_000_005 - 100_000
    log = daemon.log(command)
    assert log.startswith(b"\0" * 100_000 + b"\n[log truncated after 100000 bytes")
    assert sum(path.stat().st_size for path in daemon.home.rglob("*") if path.is_file()) < 200_000


def test_d16_a_large_snapshot_is_streamed_in_bounded_memory(daemon: Daemon) -> None:
    daemon.session()
    command = daemon.start("head -c 15000000 /dev/zero | tr '\\0' '\\1'")
    daemon.finish(command, seconds=30)
    answer = daemon.get(f"/process/session/s/command/{command}/logs", X_Daytona_SDK_Version="0.200.0")
    assert len(answer.json["stdout"]) == 15_000_000
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{daemon.process.pid}/status").read_text())
    assert peak is not None
    assert int(peak[1]) < 40_000


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


def test_d18_execute_returns_when_its_shell_does(daemon: Daemon) -> None:
    began = time.monotonic()
    answer = daemon.execute("(sleep 30; echo no) & echo yes; echo $! > pid")
    assert answer.json == {"exitCode": 0, "result": "yes\n"}
    assert time.monotonic() - began < 5
    pid = int((daemon.home / "pid").read_text())
    assert is_alive(pid)
    os.kill(pid, signal.SIGKILL)


def test_d18_a_background_server_may_go_on_writing(daemon: Daemon) -> None:
    os.mkfifo(daemon.home / "gate")
    daemon.execute("(read line < gate; echo some output; echo survived > proof) &")
    (daemon.home / "gate").write_text("go\n")
    eventually((daemon.home / "proof").exists)


def test_d18_a_timeout_tells_what_was_written_so_far(daemon: Daemon) -> None:
    answer = daemon.execute("echo begun; sleep 30", timeout=1)
    assert (answer.status, answer.json["code"]) == (408, "PROCESS_EXECUTION_TIMEOUT")
    assert "timeout" in answer.json["message"]
    assert "begun" in answer.json["message"]
    assert answer.json["details"]["output"] == "begun\n"


def test_d18_a_timeout_kills_the_whole_process_group(daemon: Daemon) -> None:
    daemon.execute("sleep 30 & echo $! > pid; wait", timeout=0.3)
    eventually(lambda: not is_alive(int((daemon.home / "pid").read_text())))


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
    began = time.monotonic()
    assert daemon.ask("DELETE", "/process/session/s").status == 204
    assert time.monotonic() - began < 6
    assert [pid for pid in pids if is_alive(int(pid))] == []
    assert daemon.get("/process/session/s").status == 404


def test_d39_deleting_an_ordinary_session_takes_no_time(daemon: Daemon) -> None:
    daemon.session()
    command = daemon.start("sleep 100")
    follower = daemon.follow(command)
    began = time.monotonic()
    assert daemon.ask("DELETE", "/process/session/s").status == 204
    assert time.monotonic() - began < 1.5
    follower.close()


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
    thread.join(10)
    assert (results[0].status, results[0].json["code"]) == (410, "SESSION_ENDED")


def test_d39_shutdown_ends_all_sessions_side_by_side(daemon: Daemon) -> None:
    for number in range(5):
        daemon.session(f"s{number}")
        daemon.start("trap '' TERM; echo $$ >> pids; while :; do sleep 1; done", f"s{number}")
    written = daemon.home / "pids"
    written.touch()
    pids = eventually(lambda: (lines := written.read_text().split()) and len(lines) == 5 and lines)
    began = time.monotonic()
    daemon.process.terminate()
    assert daemon.process.wait(10) == 0
    assert time.monotonic() - began < 5.5
    assert [pid for pid in pids if is_alive(int(pid))] == []
    assert list((daemon.home / ".sandyard").iterdir()) == []


def test_d40_without_a_version_the_text_is_the_log_itself(daemon: Daemon) -> None:
    daemon.session()
    command = daemon.start(
        "i=0; while [ $i -lt 4000 ]; do printf 'x%0120d\\001\\001' $i; printf e >&2; i=$((i+1)); done"
    )
    daemon.finish(command, seconds=30)
    frames = b"".join(frame.payload for frame in daemon.frames(command))
    assert daemon.log(command) == frames
    assert len(frames) == 4000 * 124
