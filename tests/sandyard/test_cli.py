"""The `sandyard` command as a user meets it: its output, its exit status, and what is left when it has ended."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from sandyard import __version__
from sandyard.cli import COMMANDS, main
from tests.contract.running import Combination, Instance, start
from tests.contract.toolbox import Toolbox
from tests.sandyard.command import COMPILED, SANDYARD, SECONDS, clean_environment, sandyard
from tests.sandyard.leftovers import mounts_of, processes_of

USAGE_ERROR = 2

Start = Callable[..., Instance]


def _namespaces_work() -> bool:
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    command = ["unshare", *user, "--mount", "--pid", "--net", "--fork", "true"]
    return shutil.which("unshare") is not None and subprocess.run(command, check=False).returncode == 0


@pytest.fixture(params=["namespaces", "none"])
def isolation(request: pytest.FixtureRequest) -> str:
    """Both forms of the local runtime."""
    if request.param == "namespaces" and not _namespaces_work():
        pytest.skip("this machine refuses namespaces")
    return str(request.param)


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Start]:
    """Starts `sandyard up` on `tmp_path`, as often as asked; what still runs at the end is ended."""
    started: list[Instance] = []
    scratch = tmp_path / "tmp"
    scratch.mkdir()

    def begin(isolation: str = "none", *extra: str) -> Instance:
        combination = Combination("cli", "local", isolation=isolation)
        instance = start(combination, tmp_path, *extra, environment={**COMPILED, "TMPDIR": str(scratch)})
        started.append(instance)
        return instance

    yield begin
    for instance in started:
        if instance.process.poll() is None:
            instance.process.kill()
            instance.process.wait()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """A Sandyard for the tests that only ask it something; its data directory is `data_of(running)`."""
    instance = start(
        Combination("cli", "local", isolation="none"), tmp_path_factory.mktemp("running"), environment=COMPILED
    )
    yield instance
    instance.stop()


@pytest.fixture(scope="module")
def toolbox(running: Instance) -> Toolbox:
    """A sandbox of the running Sandyard, with a session called `s`."""
    toolbox = Toolbox.create(running)
    toolbox.session("s")
    return toolbox


def data_of(instance: Instance) -> Path:
    """The directory it keeps everything in."""
    return instance.folder / "data"


def _busy_sandbox(instance: Instance) -> Toolbox:
    """A sandbox with a command that would run for long, and a process that has left its session."""
    toolbox = Toolbox.create(instance)
    toolbox.session("busy")
    leaving = "setsid sh -c 'echo $$ > away; exec sleep 2999' & sleep 3999"
    toolbox.run("busy", f"echo kept > kept; {leaving}", wait=False)
    toolbox.session("ready")
    toolbox.run("ready", "until [ -s kept ] && [ -s away ]; do sleep 0.02; done")
    return toolbox


def _assert_nothing_is_left(folder: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while left := processes_of(folder):
        # The kernel reaps what was killed in its own time; nobody we could wait for tells us.
        assert time.monotonic() < deadline, left
        time.sleep(0.02)
    assert mounts_of(folder) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_up_ends_in_order_with_nothing_left_running_or_mounted(
    up: Start, isolation: str, number: signal.Signals, tmp_path: Path
) -> None:
    instance = up(isolation)
    _busy_sandbox(instance)
    instance.process.send_signal(number)
    assert instance.process.wait(SECONDS) == 0, instance.log
    _assert_nothing_is_left(tmp_path)
    assert list((tmp_path / "tmp").iterdir()) == []
    assert "Traceback" not in instance.log


def test_up_prints_just_the_lines_that_a_shell_takes(running: Instance) -> None:
    assert [line.partition("=")[0] for line in running.said] == [
        "export DAYTONA_API_URL",
        "export DAYTONA_API_KEY",
    ]
    assert "is ready at" in running.log


def test_sandboxes_keep_their_files_over_a_restart(up: Start, isolation: str) -> None:
    first = up(isolation)
    toolbox = _busy_sandbox(first)
    first.stop()
    second = up(isolation)
    again = Toolbox(second, {**toolbox.sandbox, "toolboxProxyUrl": f"{second.origin}/toolbox"}, toolbox.headers)
    assert again.api("GET", f"/sandbox/{again.id}").json()["state"] == "stopped"
    assert again.api("POST", f"/sandbox/{again.id}/start").status == 200
    again.wait_for("started")
    answer = again.call("POST", "/process/execute", {"command": "cat kept"})
    assert answer.json() == {"exitCode": 0, "result": "kept\n"}


def test_up_after_kill_9_clears_away_what_the_killed_one_left(up: Start, isolation: str, tmp_path: Path) -> None:
    killed = up(isolation)
    toolbox = _busy_sandbox(killed)
    killed.process.kill()
    killed.process.wait(SECONDS)
    second = up(isolation)
    assert second.process.poll() is None
    deadline = time.monotonic() + SECONDS
    again = Toolbox(second, toolbox.sandbox, toolbox.headers)
    while (found := again.api("GET", f"/sandbox/{again.id}").json())["state"] in ("started", "stopping"):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    assert found["state"] in ("stopped", "error"), found
    while left := [line for line in processes_of(tmp_path) if "sleep" in line or "sandyard_daemon" in line]:
        assert time.monotonic() < deadline, left
        time.sleep(0.02)
    assert second.stop() == 0
    _assert_nothing_is_left(tmp_path)


def test_a_data_directory_in_use_is_refused_in_one_line(running: Instance) -> None:
    refused = sandyard("up", "--port", "0", "--data-dir", data_of(running), "--runtime", "local")
    assert refused.returncode == 1
    assert running.origin in refused.stderr
    assert "Traceback" not in refused.stderr
    assert refused.stdout == ""


def test_a_taken_port_is_refused_in_one_line(running: Instance, tmp_path: Path) -> None:
    refused = sandyard("up", "--port", running.port, "--data-dir", tmp_path, "--runtime", "local")
    assert refused.returncode == 1
    assert f"127.0.0.1:{running.port}" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_setting_that_makes_no_sense_is_a_usage_error(tmp_path: Path) -> None:
    refused = sandyard("up", "--data-dir", tmp_path, SANDYARD_PORT="many")
    assert refused.returncode == USAGE_ERROR
    assert "SANDYARD_PORT" in refused.stderr


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["sh", "-c", "exit 0"], 0),
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -9 $$"], 128 + signal.SIGKILL),
        (["no-such-program"], 127),
    ],
)
def test_run_exits_as_its_command_did(command: list[str], status: int, tmp_path: Path) -> None:
    done = sandyard("run", "--runtime", "local", "--isolation", "none", "--", *command, TMPDIR=str(tmp_path))
    assert done.returncode == status, done.stderr
    assert list(tmp_path.iterdir()) == []


CREATES_A_SANDBOX = """
import json, os, time, urllib.request
url, key = os.environ["DAYTONA_API_URL"] + "/sandbox", os.environ["DAYTONA_API_KEY"]
headers = {"Authorization": "Bearer " + key, "Content-Type": "application/json"}

def ask(path="", body=None):
    return json.load(urllib.request.urlopen(urllib.request.Request(url + path, body, headers)))

made, deadline = ask(body=b"{}"), time.monotonic() + 120
while made["state"] not in ("started", "error") and time.monotonic() < deadline:
    time.sleep(0.1)
    made = ask("/" + made["id"])
print(made["state"])
"""


@pytest.mark.parametrize("url", ["mysql://me:hunter2@localhost/y", "postgresql://me:hunter2@127.0.0.1:1/y"])
def test_up_without_its_database_ends_with_one_line_and_leaves_nothing(
    url: str, isolation: str, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    where = ("--data-dir", str(data), "--port", "0", "--runtime", "local", "--isolation", isolation)
    refused = sandyard("up", *where, SANDYARD_DATABASE_URL=url)
    assert refused.returncode == 1
    assert refused.stderr.startswith("Error: the database")
    assert len(refused.stderr.splitlines()) == 1
    assert "hunter2" not in refused.stderr
    _assert_nothing_is_left(data)
    assert list(data.glob("sandboxes/*")) == []


def test_run_sets_the_environment_and_removes_everything(isolation: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", CREATES_A_SANDBOX]
    done = sandyard("run", "--runtime", "local", "--isolation", isolation, "--", *command, TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "started\n"
    assert list(tmp_path.iterdir()) == []
    _assert_nothing_is_left(tmp_path)


def test_a_server_does_not_load_what_only_an_sdk_needs(tmp_path: Path) -> None:
    pytest.importorskip("pydantic")
    arguments = ("--isolation", "none", "--data-dir", tmp_path / "data")
    done = sandyard("run", *arguments, "--", "true", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0, done.stderr
    imported = re.findall(r"^import time:.*\| +(\S+)$", done.stderr, re.MULTILINE)
    assert "litestar.app" in imported
    assert "pydantic" not in imported


def test_run_gives_its_data_directory_back_without_sandboxes(tmp_path: Path) -> None:
    data = tmp_path / "data"
    command = [sys.executable, "-c", CREATES_A_SANDBOX]
    options = ["--runtime", "local", "--isolation", "none", "--data-dir", data]
    assert sandyard("run", *options, "--", *command).returncode == 0
    assert list((data / "sandboxes").iterdir()) == []


def test_run_passes_a_signal_on_and_still_removes_everything(tmp_path: Path) -> None:
    script = "trap 'echo asked; exit 5' TERM; echo begun; while :; do sleep 0.05; done"
    process = subprocess.Popen(
        [SANDYARD, "run", "--runtime", "local", "--isolation", "none", "--", "sh", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=clean_environment(TMPDIR=str(tmp_path)),
    )
    assert process.stdout is not None
    with process.stdout as output:
        assert output.readline() == "begun\n"
        process.send_signal(signal.SIGTERM)
        assert output.readline() == "asked\n"
    assert process.wait(SECONDS) == 5
    assert list(tmp_path.iterdir()) == []


def test_env_prints_what_up_printed_for_a_shell_to_take(running: Instance) -> None:
    assert sandyard("env", "--data-dir", data_of(running)).stdout.splitlines() == running.said
    script = f'eval "$({SANDYARD} env --data-dir {data_of(running)})" && echo "$DAYTONA_API_URL $DAYTONA_API_KEY"'
    taken = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=SECONDS, check=True)
    assert taken.stdout == f"{running.api_url} {running.api_key}\n"


@pytest.mark.parametrize("command", [("env",), ("ls",), ("logs", "sandbox", "session", "command")])
def test_commands_that_need_a_sandyard_say_that_none_is_running(command: tuple[str, ...], tmp_path: Path) -> None:
    done = sandyard(*command, "--data-dir", tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "sandyard up" in done.stderr


def test_ls_shows_sandboxes_as_a_table_and_as_json(running: Instance, toolbox: Toolbox) -> None:
    table = sandyard("ls", "--data-dir", data_of(running), COLUMNS="200")
    assert table.returncode == 0, table.stderr
    assert toolbox.id in table.stdout
    assert "started" in table.stdout
    listed = sandyard("ls", "--json", "--data-dir", data_of(running))
    assert [item["id"] for item in json.loads(listed.stdout)] == [toolbox.id]


def test_ls_takes_the_variables_that_the_sdks_read(running: Instance, toolbox: Toolbox, tmp_path: Path) -> None:
    names = {"DAYTONA_API_URL": running.api_url, "DAYTONA_API_KEY": running.api_key}
    found = sandyard("ls", "--json", "--data-dir", tmp_path, **names)
    assert found.returncode == 0, found.stderr
    assert [item["id"] for item in json.loads(found.stdout)] == [toolbox.id]
    refused = sandyard("ls", **names | {"DAYTONA_API_KEY": "wrong"})
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr


def test_logs_follow_to_the_end_on_the_streams_they_came_from(running: Instance, toolbox: Toolbox) -> None:
    command = toolbox.run("s", "for n in 1 2 3; do echo out $n; echo err $n >&2; sleep 0.1; done", wait=False)
    arguments = ("--data-dir", data_of(running), toolbox.id, "s", command["cmdId"])
    followed = sandyard("logs", "-f", *arguments)
    assert followed.returncode == 0, followed.stderr
    assert followed.stdout == "out 1\nout 2\nout 3\n"
    assert followed.stderr == "err 1\nerr 2\nerr 3\n"
    again = sandyard("logs", *arguments)
    assert (again.returncode, again.stdout, again.stderr) == (0, followed.stdout, followed.stderr)


@pytest.mark.parametrize("follow", [(), ("-f",)], ids=["read", "follow"])
def test_logs_of_an_unknown_command_fail_with_the_servers_words(
    running: Instance, toolbox: Toolbox, follow: tuple[str, ...]
) -> None:
    done = sandyard("logs", *follow, "--data-dir", data_of(running), toolbox.id, "s", "nothing")
    assert done.returncode == 1
    assert "not found" in done.stderr.lower()
    assert "Traceback" not in done.stderr


def test_down_removes_all_that_is_ours_and_nothing_else(up: Start, isolation: str, tmp_path: Path) -> None:
    instance = up(isolation)
    _busy_sandbox(instance)
    data = tmp_path / "data"
    (data / "not-ours").write_text("kept")
    done = sandyard("down", "--data-dir", data)
    assert done.returncode == 0, done.stderr
    assert instance.process.wait(SECONDS) == 0
    assert {path.name for path in data.iterdir()} <= {
        "not-ours",
        "lock",
        "api-key",
        "internal-token",
        "encryption-key",
        "ssh-host-key",
        "installation",
    }
    assert (data / "not-ours").read_text() == "kept"
    _assert_nothing_is_left(tmp_path)


def test_down_keeps_the_key_unless_told_otherwise(up: Start, tmp_path: Path) -> None:
    first = up()
    data = tmp_path / "data"
    assert sandyard("down", "--data-dir", data).returncode == 0
    assert up().api_key == first.api_key
    assert sandyard("down", "--keys", "--data-dir", data).returncode == 0
    assert not (data / "api-key").exists()


def test_down_without_a_sandyard_has_nothing_to_do(tmp_path: Path) -> None:
    for _ in range(2):
        done = sandyard("down", "--data-dir", tmp_path / "never-used")
        assert done.returncode == 0
        assert not (tmp_path / "never-used").exists()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(shell: str) -> None:
    done = sandyard("completion", shell)
    assert done.returncode == 0
    assert "_SANDYARD_COMPLETE" in done.stdout


def test_completion_of_bash_completes_our_commands() -> None:
    done = sandyard(_SANDYARD_COMPLETE="bash_complete", COMP_WORDS="sandyard do", COMP_CWORD="1")
    assert {line.partition(",")[2] for line in done.stdout.split()} == {"doctor", "down"}


def test_an_unknown_shell_is_a_usage_error() -> None:
    assert sandyard("completion", "tcsh").returncode == USAGE_ERROR


def test_doctor_succeeds_where_a_runtime_works(tmp_path: Path) -> None:
    done = sandyard(
        "doctor",
        "--isolation",
        "none",
        "--port",
        "0",
        "--data-dir",
        tmp_path / "data",
        DOCKER_HOST=f"unix://{tmp_path}/nothing",
        TMPDIR=str(tmp_path),
        COLUMNS="300",
    )
    assert done.returncode == 0, done.stderr
    assert "What the local runtime holds" in done.stdout
    assert "install and start Docker" in done.stdout
    assert list(tmp_path.iterdir()) == [], "a check leaves nothing behind"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up root's capabilities")
def test_doctor_fails_where_no_runtime_works_and_names_the_way_out(tmp_path: Path) -> None:
    # As in a default, unprivileged container: root by name, and may make no namespaces.
    command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", SANDYARD, "doctor", "--data-dir", str(tmp_path)]
    environment = clean_environment(DOCKER_HOST=f"unix://{tmp_path}/nothing", COLUMNS="300")
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=environment, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "--isolation none" in done.stdout


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_explains_itself(command: str) -> None:
    shown = CliRunner().invoke(main, [command, "--help"])
    assert shown.exit_code == 0, shown.output
    assert command in shown.output.partition("\n")[0]


def test_the_version_is_told() -> None:
    assert sandyard("--version").stdout == f"sandyard, version {__version__}\n"
