"""Start, door, directories, environment, entrypoint, events, shutdown."""

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sandyard_daemon import VERSION
from sandyard_daemon.service import Arguments, UsageError, parse
from sandyard_daemon.wire import DOOR_HEADER, Stream
from tests.daemon.conftest import ROOT, SECRET, Daemon, DoorConnection, Starter, eventually
from tests.daemon.processes import is_alive


def test_the_command_line_is_read() -> None:
    assert parse(["--door-dir", "/d", "--work-dir", "/w", "--", "--odd", "a b"]) == Arguments(
        Path("/d"), work_dir="/w", entrypoint=("--odd", "a b")
    )
    assert parse(["--door-dir", "/d", "server", "--port"]).entrypoint == ("server", "--port")


@pytest.mark.parametrize("words", [[], ["--door-dir"], ["--unknown", "x"], ["--door-dir", "/d", "--log-cap", "much"]])
def test_a_wrong_command_line_is_refused(words: list[str]) -> None:
    with pytest.raises(UsageError):
        parse(words)


def test_without_a_secret_it_does_not_start(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sandyard_daemon", "--door-dir", str(tmp_path)]
    ended = subprocess.run(
        command, env={"PYTHONPATH": str(ROOT / "daemon")}, capture_output=True, timeout=60, check=False
    )
    assert ended.returncode == 2
    assert b"cannot_start" in ended.stderr


def test_the_secret_is_gone_before_anything_runs_and_every_request_needs_it(daemon: Daemon) -> None:
    assert [path.name for path in daemon.door.parent.iterdir()] == ["door.sock"]
    connection = DoorConnection(daemon.door)
    for headers in ({}, {DOOR_HEADER: "wrong"}, {DOOR_HEADER: ""}):
        connection.request("GET", "/version", headers=headers)
        response = connection.getresponse()
        body = json.loads(response.read())
        assert (response.status, body["code"], body["source"]) == (401, "UNAUTHORIZED", "DAYTONA_DAEMON")
    connection.close()


def test_the_secret_is_nowhere_user_code_can_look(daemon: Daemon) -> None:
    secret = "door-secret-of-this-test"
    assert (
        secret not in daemon.execute("env; cat /proc/$PPID/cmdline /proc/$PPID/environ | tr '\\0' '\\n'").json["result"]
    )


def test_version_and_directories(start_daemon: Starter, tmp_path: Path) -> None:
    daemon = start_daemon("--work-dir", str(tmp_path))
    assert daemon.get("/version").json == {"version": f"v{VERSION}"}
    assert daemon.get("/user-home-dir").json == daemon.get("/project-dir").json == {"dir": str(daemon.home)}
    assert daemon.get("/work-dir").json == {"dir": str(tmp_path)}
    assert daemon.execute("pwd").json["result"] == f"{tmp_path}\n"
    assert daemon.execute("pwd", cwd="sandbox").json["result"] == f"{tmp_path}/sandbox\n"
    assert daemon.execute("pwd", cwd="/none").json["exitCode"] == -1
    daemon.session()
    assert daemon.run("pwd")["stdout"] == f"{tmp_path}\n"
    daemon.post("/process/session", {"sessionId": "old"}, X_Daytona_SDK_Version="0.102.0")
    assert daemon.run("pwd", "old")["stdout"] == f"{daemon.home}\n"


def test_the_version_is_the_distributions() -> None:
    assert f'version = "{VERSION}"' in (ROOT / "pyproject.toml").read_text()


def test_env_changes_what_later_processes_see(daemon: Daemon) -> None:
    daemon.session("before")
    daemon.run("true", "before")
    assert "message" in daemon.post("/env", {"set": {"A": "1", "B": "secret-x", "C": "secret-y"}}).json
    assert daemon.execute("echo $A $B $C").json["result"] == "1 secret-x secret-y\n"
    daemon.post("/env", {"set": {"C": "secret-z"}, "unset": ["A"], "unsetValuePrefix": "secret-"})
    assert daemon.execute("echo [$A] [$B] [$C]").json["result"] == "[] [] [secret-z]\n"
    assert daemon.execute("echo $A", envs={"A": "mine\nlines"}).json["result"] == "mine lines\n"
    assert daemon.run("echo [$C]", "before")["stdout"] == "[]\n"
    assert daemon.post("/env", {"set": {"1BAD": "x"}}).status == 400
    assert daemon.execute("true", envs={"bad name": "x"}).status == 400


def test_variables_of_ours_do_not_reach_user_processes(start_daemon: Starter) -> None:
    daemon = start_daemon(SANDYARD_SOMETHING="ours", USERS_OWN="theirs")
    assert daemon.execute("echo [$SANDYARD_SOMETHING] [$USERS_OWN] [$DAYTONA_SANDBOX_ID]").json["result"] == (
        "[] [theirs] [sandbox-of-this-test]\n"
    )


def test_the_entrypoint_session_always_exists(daemon: Daemon) -> None:
    session = daemon.get("/process/session/entrypoint").json
    assert session == {
        "sessionId": "entrypoint",
        "commands": [{"id": "entrypoint_command", "command": "sleep infinity"}],
    }
    logs = daemon.get("/process/session/entrypoint/logs", X_Daytona_SDK_Version="0.200.0")
    assert logs.json == {"output": "", "stdout": "", "stderr": ""}
    assert daemon.get("/process/session").json == []
    assert daemon.ask("DELETE", "/process/session/entrypoint").status == 400


def test_the_entrypoint_runs_after_init_and_once(start_daemon: Starter) -> None:
    daemon = start_daemon("--", "sh", "-c", "echo started; echo err >&2; echo x >> ran; exit 5", "a b")
    assert "exitCode" not in daemon.get("/process/session/entrypoint").json["commands"][0]
    assert not (daemon.home / "ran").exists()
    assert daemon.post("/init", {"token": "t"}).status == 200
    assert daemon.post("/init").status == 200
    assert daemon.post("/init", b"{").status == 400
    assert daemon.finish("entrypoint_command", "entrypoint") == 5
    assert daemon.log("entrypoint_command", "entrypoint") == b"started\nerr\n"
    old = daemon.get("/process/session/entrypoint/logs", X_Daytona_SDK_Version="0.150.0")
    assert old.body == b"\1\1\1started\n\2\2\2err\n"
    assert (daemon.home / "ran").read_text() == "x\n"
    assert daemon.execute("echo the daemon outlives it").status == 200


def events(daemon: Daemon, after: int, count: int) -> list[Any]:
    """The next `count` events after a number."""
    connection = DoorConnection(daemon.door)
    connection.request("GET", f"/_daemon/events?after={after}", headers={DOOR_HEADER: "door-secret-of-this-test"})
    response = connection.getresponse()
    found: list[Any] = []
    while len(found) < count:
        if line := response.readline().strip():
            found.append(json.loads(line))
    response.close()
    connection.close()
    return found


def test_events_tell_what_happened_and_can_be_read_again_until_acknowledged(daemon: Daemon) -> None:
    daemon.session()
    command = daemon.run("echo out; echo err >&2; exit 3")["cmdId"]
    found = events(daemon, 0, 6)
    assert [event["kind"] for event in found] == [
        "session_created",
        "session_created",
        "command_created",
        "command_started",
        "command_ended",
        "session_ended",
    ]
    ended = found[4]
    assert (ended["command_id"], ended["exit_code"], ended["log_size"]) == (command, 3, 8)
    assert ended["last_lines"] == "b3V0CmVycgo="
    assert events(daemon, 0, 6) == found
    assert events(daemon, found[3]["number"], 2) == found[4:]
    assert events(daemon, 0, 2) == found[4:]


def test_last_lines_survive_the_session(daemon: Daemon) -> None:
    daemon.session()
    daemon.run("echo kept")
    daemon.ask("DELETE", "/process/session/s")
    (ended,) = [event for event in events(daemon, 0, 6) if event["kind"] == "command_ended"]
    assert ended["last_lines"] == "a2VwdAo="


def test_event_numbers_rise_over_restarts(start_daemon: Starter) -> None:
    first, second = start_daemon(name="one"), start_daemon(name="two")
    assert events(first, 0, 1)[0]["number"] < events(second, 0, 1)[0]["number"]


def test_a_restart_forgets_sessions_and_removes_what_a_killed_daemon_left(
    start_daemon: Starter, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    killed = start_daemon("--state-dir", str(state), name="one")
    killed.session()
    killed.run("echo some output")
    pid = int(killed.run("echo $$")["stdout"])
    killed.process.send_signal(signal.SIGKILL)
    killed.process.wait()
    eventually(lambda: not is_alive(pid))
    assert len(list(state.iterdir())) == 1
    fresh = start_daemon("--state-dir", str(state), name="two")
    assert len(list(state.iterdir())) == 1
    assert fresh.get("/process/session/s").status == 404
    other = start_daemon("--state-dir", str(state), name="three")
    assert len(list(state.iterdir())) == 2  # a living daemon's files are not touched
    assert other.get("/version").status == 200
    assert fresh.execute("x=" + "y" * 200_000 + "; echo ${#x}").json["result"] == "200000\n"


def test_the_state_directory_is_private(daemon: Daemon) -> None:
    (boot,) = (daemon.home / ".sandyard").iterdir()
    assert stat.S_IMODE(boot.stat().st_mode) == 0o700


def test_orphans_are_reaped(daemon: Daemon) -> None:
    daemon.execute("(setsid sh -c 'echo $$ > orphan; sleep 0.05' &)")
    pid = int(eventually(lambda: (daemon.home / "orphan").exists() and (daemon.home / "orphan").read_text().strip()))
    eventually(lambda: not os.path.exists(f"/proc/{pid}"))


def test_sigterm_ends_it_with_status_0_and_no_files(start_daemon: Starter) -> None:
    daemon = start_daemon("--", "sleep", "1000")
    daemon.post("/init")
    daemon.session()
    daemon.start("sleep 1000")
    daemon.process.terminate()
    assert daemon.process.wait(60) == 0
    assert list((daemon.home / ".sandyard").iterdir()) == []


def test_sigterm_delivers_the_last_events_and_ends_their_stream_at_once(daemon: Daemon) -> None:
    daemon.session()
    command = daemon.start("sleep 1000")
    follower = daemon.follow(command)
    connection = DoorConnection(daemon.door)
    connection.request("GET", "/_daemon/events?after=0", headers={DOOR_HEADER: SECRET})
    response = connection.getresponse()
    daemon.process.terminate()
    # Streams that are still open when the daemon's grace is over are cut: an incomplete body raises.
    lines = [json.loads(line) for line in response.read().splitlines() if line]
    assert follower.rest()[-1].stream is Stream.END
    assert daemon.process.wait(60) == 0
    connection.close()
    ended = next(event for event in lines if event["kind"] == "command_ended" and event["command_id"] == command)
    assert ended["exit_code"] == 143
    assert [event["kind"] for event in lines[-2:]].count("session_ended") >= 1


def test_the_health_answer_names_the_last_event(daemon: Daemon) -> None:
    daemon.session()
    daemon.run("true")
    assert events(daemon, 0, 5)[-1]["number"] == daemon.get("/_daemon/health").json["last_event"]
