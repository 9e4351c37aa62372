"""The pytest plugin as its users have it: a run of pytest in a folder of its own."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.sandyard.command import clean_environment
from tests.sandyard.leftovers import processes_of

RUN_SECONDS = 280
REPEATED = Path(__file__).resolve().parents[2] / "scripts" / "example-runs"


def run_pytest(
    folder: Path, source: str, *arguments: str, seconds: float = RUN_SECONDS, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `source` as a test file, with the plugin by its entry point."""
    folder.mkdir(exist_ok=True)
    (folder / "test_it.py").write_text(source)
    (folder / "pytest.ini").write_text("[pytest]\n")
    scratch = folder / "tmp"
    scratch.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--sandyard-isolation", "none", *arguments]
    return subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=seconds,
        env=clean_environment(**{"TMPDIR": str(scratch), "PYTHONWARNINGS": "ignore"} | environment),
        check=False,
    )


def assert_nothing_is_left(folder: Path) -> None:
    """No server, no sandbox, no folder."""
    assert processes_of(folder) == []
    assert [path.name for path in (folder / "tmp").iterdir() if path.name.startswith("sandyard")] == []


PLAIN = """
import json, os, urllib.request

def ask(env, path):
    headers = {"Authorization": "Bearer " + env["DAYTONA_API_KEY"]}
    request = urllib.request.Request(env["DAYTONA_API_URL"] + path, headers=headers)
    return json.load(urllib.request.urlopen(request))
"""


def test_two_tests_have_an_organization_each_and_the_variables_of_the_sdks(tmp_path: Path) -> None:
    done = run_pytest(
        tmp_path / "run",
        PLAIN
        + """
seen = set()

def one(env):
    assert os.environ["DAYTONA_API_KEY"] == env["DAYTONA_API_KEY"]
    seen.add(ask(env, "/api-keys/current")["organizationId"])

def test_a(sandyard_env): one(sandyard_env)
def test_b(sandyard_env): one(sandyard_env)
def test_they_differ(sandyard): assert len(seen) == 2 and "DAYTONA_API_KEY" not in os.environ
""",
    )
    assert "3 passed" in done.stdout, done.stdout + done.stderr
    assert_nothing_is_left(tmp_path / "run")


def test_a_run_without_our_fixtures_starts_and_imports_nothing(tmp_path: Path) -> None:
    done = run_pytest(
        tmp_path / "run",
        """
import sys

def test_nothing():
    ours = [name for name in sys.modules if name.startswith("sandyard")]
    assert ours == ["sandyard", "sandyard.pytest_plugin"], ours
    assert "sqlalchemy" not in sys.modules
""",
    )
    assert "1 passed" in done.stdout, done.stdout


def test_a_failures_report_has_the_journal_and_the_command_logs(tmp_path: Path) -> None:
    pytest.importorskip("daytona")
    done = run_pytest(
        tmp_path / "run",
        """
from daytona import SessionExecuteRequest

def test_it_fails(sandyard_client):
    sandbox = sandyard_client.create()
    sandbox.process.exec("echo from-exec")
    sandbox.process.create_session("s")
    sandbox.process.execute_session_command("s", SessionExecuteRequest(command="echo from-session; exit 3"))
    assert False

def test_it_passes(sandyard_client):
    sandyard_client.create()
""",
        "-W",
        "ignore",
    )
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert done.stdout.count("Sandyard journal") == 1
    for expected in ("POST /api/sandbox -> 200", "from-exec", "exit code 3", "    from-session"):
        assert expected in done.stdout
    assert_nothing_is_left(tmp_path / "run")


def test_a_fault_that_never_fired_is_told(tmp_path: Path) -> None:
    done = run_pytest(
        tmp_path / "run",
        """
def test_it(sandyard_faults):
    sandyard_faults.add("drop", on={"operation": "createSandbox"})
""",
        PYTHONWARNINGS="default",
    )
    assert "never fired: {'action': {'kind': 'drop'}" in done.stdout, done.stdout


def test_xdist_workers_share_one_server_and_own_their_clocks(tmp_path: Path) -> None:
    done = run_pytest(
        tmp_path / "run",
        PLAIN
        + """
import pathlib, pytest

folder = pathlib.Path(os.environ["TMPDIR"])

@pytest.mark.parametrize("number", range(6))
def test_shared(sandyard, number):
    (folder / f"seen-{number}").write_text(sandyard.door.origin)

@pytest.mark.parametrize("number", range(2))
def test_clock(sandyard, sandyard_clock, number):
    before = sandyard_clock.freeze()
    assert (sandyard_clock.advance(days=1) - before).days == 1
    (folder / f"own-{number}").write_text(sandyard.door.origin)
""",
        "-n",
        "3",
    )
    assert "8 passed" in done.stdout, done.stdout + done.stderr
    scratch = tmp_path / "run" / "tmp"
    shared = {path.read_text() for path in scratch.glob("seen-*")}
    assert len(shared) == 1
    assert not shared & {path.read_text() for path in scratch.glob("own-*")}
    assert_nothing_is_left(tmp_path / "run")


def test_an_organization_for_a_worker_is_reset_between_tests(tmp_path: Path) -> None:
    done = run_pytest(
        tmp_path / "run",
        PLAIN
        + """
def test_a(sandyard):
    sandyard.door.ask("POST", "/api/sandbox", {"name": "x"})
def test_b(sandyard):
    assert sandyard.door.ask("GET", "/api/sandbox")["items"] == []
    assert sandyard.journal(operation="createSandbox") == []
""",
        "-o",
        "sandyard_organization=worker",
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_a_run_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    done = run_pytest(
        tmp_path / "run",
        """
import os, signal

def test_it(sandyard):
    sandyard.door.ask("POST", "/api/sandbox", {})
    os.kill(os.getpid(), signal.SIGKILL)
""",
    )
    assert done.returncode == -9
    while processes_of(tmp_path / "run"):
        time.sleep(0.05)  # the server sees the end of its run, and pytest's own limit is the deadline
    assert_nothing_is_left(tmp_path / "run")


def test_a_running_sandyard_is_used_with_its_owners_key(tmp_path: Path) -> None:
    done = run_pytest(tmp_path / "run", "def test_it(sandyard): pass", "--sandyard-url", "http://127.0.0.1:9")
    assert "needs the owner's key" in done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.sdk
@pytest.mark.timeout(14400)
@pytest.mark.parametrize(
    ("runtime", "runs"), [("local", 20), pytest.param("docker", 3, marks=pytest.mark.docker)], ids=["local", "docker"]
)
def test_the_example_passes_again_and_again_with_16_workers(runtime: str, runs: int) -> None:
    pytest.importorskip("daytona")
    done = subprocess.run(
        [sys.executable, REPEATED, "--runs", str(runs), "--runtime", runtime],
        capture_output=True,
        text=True,
        timeout=14000,
        env=clean_environment(PATH=os.environ["PATH"]),
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr
