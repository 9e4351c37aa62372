"""The user's shell: what persists, what may not break it, in bash, dash and busybox."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandyard_daemon.children import Children
from sandyard_daemon.environment import Environment
from sandyard_daemon.errors import Internal, SessionEnded
from sandyard_daemon.events import EventLog
from sandyard_daemon.linux import raise_descriptor_limit, set_descriptor_limit
from sandyard_daemon.sessions.command import Command
from sandyard_daemon.sessions.registry import Sessions
from sandyard_daemon.state import StateDirectory
from tests.daemon.conftest import Daemon, Starter, eventually


class EnvironmentOfOneShell(Environment):
    """An image that holds one shell only."""

    __slots__ = ("only_shell",)
    only_shell: str

    def shell(self) -> str:
        if not Path(self.only_shell).exists():
            raise Internal("this sandbox has neither bash nor sh")
        return self.only_shell


@pytest.fixture(params=["bash", "dash", "busybox"])
async def sessions(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Sessions]:
    """Sessions of one shell, inside this process."""
    program = shutil.which(request.param)
    if program is None:
        pytest.skip(f"there is no {request.param} here")
    (tmp_path / "sh").symlink_to(program)  # busybox takes its applet's name
    limits = raise_descriptor_limit()
    environment = EnvironmentOfOneShell(str(tmp_path), str(tmp_path), limits, {"PATH": "/usr/bin:/bin"})
    environment.only_shell = program if request.param == "bash" else str(tmp_path / "sh")
    children = Children()
    children.start()
    sessions = Sessions(environment, children, StateDirectory.open([tmp_path / "state"]), EventLog())
    sessions.create("s", at_home=False)
    yield sessions
    await sessions.close(10)
    children.stop()
    set_descriptor_limit(limits)


async def run(sessions: Sessions, text: str) -> tuple[int | None, bytes]:
    """Exit code and output of a command."""
    command = sessions.execute("s", text, is_async=False, echo=False)
    return await result(command)


async def result(command: Command) -> tuple[int | None, bytes]:
    async with asyncio.timeout(60):
        await command.wait()
    return command.exit_code, command.log.read(0, command.log.size)


async def test_state_persists(sessions: Sessions) -> None:
    await run(sessions, "cd /usr; x=1; export y=2; f() { echo f$1; }; umask 027; set -f")
    assert await run(sessions, "pwd; echo $x; sh -c 'echo $y'; f 3; umask; echo *") == (
        0,
        b"/usr\n1\n2\nf3\n0027\n*\n",
    )


async def test_the_exit_code_is_the_commands(sessions: Sessions) -> None:
    assert (await run(sessions, "true"))[0] == 0
    assert (await run(sessions, "return 5"))[0] == 5
    assert (await run(sessions, "sh -c 'kill -9 $$'"))[0] == 137
    assert (await run(sessions, "nonexistent-program"))[0] == 127
    assert await run(sessions, "echo $?") == (0, b"127\n")


async def test_the_end_of_the_shell_is_the_commands_end(sessions: Sessions) -> None:
    running = sessions.execute("s", "read go; echo out; exit 3", is_async=True, echo=False)
    queued = sessions.execute("s", "echo never", is_async=False, echo=False)
    running.write_input("go", raw=False)
    assert await result(running) == (3, b"out\n")
    code, output = await result(queued)
    assert code == 1
    assert b"ended" in output
    with pytest.raises(SessionEnded):
        await run(sessions, "echo again")


@pytest.mark.parametrize("command", ["set -e; false", "set -u; : $undefined_name", "exec true", "if", "kill -9 $$"])
async def test_nothing_a_command_does_leaves_it_running(sessions: Sessions, command: str) -> None:
    assert (await run(sessions, command))[0] is not None


@pytest.mark.parametrize(
    "command",
    [
        "exec 9>/dev/null; exec 3>&1; exec 4</dev/null",
        "exec 0</dev/null; exec >/dev/null 2>&1",
        "exec 0<&- 1>&- 2>&-",
        "set -C; set -u; set -x",
        "alias printf=false; alias echo=false; printf() { :; }",
        "IFS=0123456789",
        "PATH=/nowhere",
        "trap '' TERM HUP INT; trap 'echo x' EXIT",
        "cd /; x=/proc; unset HOME",
        "ulimit -n 20; ulimit -f 0 || true",
        "wait; sleep 100 & ",
        "LC_ALL=xx; LANG=",
    ],
)
async def test_what_users_do_to_their_shell_does_not_cut_us_off(sessions: Sessions, command: str) -> None:
    await run(sessions, command)
    again = sessions.execute(
        "s", "PATH=/usr/bin:/bin; unalias echo 2>/dev/null; /bin/echo fine", is_async=False, echo=False
    )
    code, output = await result(again)
    assert code == 0
    assert output.splitlines()[-1] == b"fine"


async def test_a_shell_that_is_not_there_is_told(tmp_path: Path) -> None:
    environment = EnvironmentOfOneShell(str(tmp_path), str(tmp_path), (1024, 4096), {})
    environment.only_shell = "/none"
    sessions = Sessions(environment, Children(), StateDirectory.open([tmp_path / "state"]), EventLog())
    sessions.create("s", at_home=False)
    with pytest.raises(Internal, match="neither bash nor sh"):
        sessions.execute("s", "true", is_async=False, echo=False)


def test_bash_env_is_read_without_touching_the_commands(start_daemon: Starter, tmp_path: Path) -> None:
    start_file = tmp_path / "start"
    start_file.write_text("greet() { echo greeted; }; read line; cat; false\n")
    daemon = start_daemon(BASH_ENV=str(start_file))
    daemon.session()
    assert daemon.run("echo $?; greet; sh -c 'echo $BASH_ENV'")["stdout"] == f"0\ngreeted\n{start_file}\n"


def test_a_killed_supervisor_ends_its_session(daemon: Daemon) -> None:
    daemon.session()
    command = daemon.start("kill -9 $PPID; sleep 100")
    assert daemon.finish(command) == 137
    assert daemon.post("/process/session/s/exec", {"command": "true"}).status == 410
    assert daemon.ask("DELETE", "/process/session/s").status == 204


def test_a_lost_state_directory_ends_the_command_and_not_the_daemon(daemon: Daemon) -> None:
    daemon.session()
    daemon.run("rm -rf ~/.sandyard")
    assert daemon.post("/process/session/s/exec", {"command": "echo x"}).status == 500
    assert daemon.execute("echo fine").json["result"] == "fine\n"


def test_a_missing_work_directory_falls_back_to_home(daemon: Daemon) -> None:
    daemon.session()
    work = daemon.directory / "gone"
    other = daemon.execute("pwd", cwd=str(work))
    assert other.json["exitCode"] == -1
    assert "No such file" in other.json["result"]


def test_many_sessions_run_at_once(daemon: Daemon) -> None:
    for number in range(30):
        daemon.session(f"s{number}")
    commands = [daemon.start(f"read go; echo {number}", f"s{number}") for number in range(30)]
    for number, command in enumerate(commands):
        daemon.post(f"/process/session/s{number}/command/{command}/input", {"data": "go"})
    for number, command in enumerate(commands):
        assert daemon.finish(command, f"s{number}") == 0
    eventually(lambda: daemon.get("/_daemon/health").json["running"] == 1)
