"""The commands of the test bench, and `run --isolate`."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.running import Combination, Instance, start
from tests.sandyard.command import COMPILED, sandyard


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    instance = start(
        Combination("bench", "local", isolation="none"), tmp_path_factory.mktemp("bench"), environment=COMPILED
    )
    yield instance
    instance.stop()


def ask(running: Instance, *arguments: str) -> str:
    done = sandyard(*arguments, DAYTONA_API_URL=running.api_url, DAYTONA_API_KEY=running.api_key)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_clock_is_moved_by_spans_that_people_write(running: Instance) -> None:
    assert "(frozen)" in ask(running, "clock", "freeze")
    before = ask(running, "clock")
    assert ask(running, "clock", "advance", "1d2h") > before
    assert "(real)" in ask(running, "clock", "release")
    refused = sandyard("clock", "advance", "soon", DAYTONA_API_URL=running.api_url, DAYTONA_API_KEY=running.api_key)
    assert "1h30m" in refused.stderr


def test_a_fault_that_never_fired_ends_clear_with_1(running: Instance) -> None:
    ask(running, "faults", "add", json.dumps({"operation": "createSandbox", "action": {"kind": "drop"}}))
    done = sandyard("faults", "clear", DAYTONA_API_URL=running.api_url, DAYTONA_API_KEY=running.api_key)
    assert (done.returncode, "never fired" in done.stdout) == (1, True)


def test_the_journal_says_that_it_is_off(running: Instance) -> None:
    done = sandyard("journal", DAYTONA_API_URL=running.api_url, DAYTONA_API_KEY=running.api_key)
    assert "journal is off" in done.stderr


FAILS = """
import json, os, sys, urllib.request
headers = {"Authorization": "Bearer " + os.environ["DAYTONA_API_KEY"]}
request = urllib.request.Request(os.environ["DAYTONA_API_URL"] + "/sandbox", b"{}", headers, method="POST")
print(json.load(urllib.request.urlopen(request))["organizationId"])
sys.exit(7)
"""


def test_isolate_gives_a_command_its_own_organization_and_tells_what_it_asked_when_it_fails(
    running: Instance, tmp_path: Path
) -> None:
    ask(running, "journal", "on")
    program = tmp_path / "program.py"
    program.write_text(FAILS)
    environment = {"DAYTONA_API_URL": running.api_url, "DAYTONA_API_KEY": running.api_key}
    runs = [sandyard("run", "--isolate", "--", sys.executable, str(program), **environment) for _ in range(2)]
    for done in runs:
        assert done.returncode == 7, done.stderr
        assert "POST /api/sandbox -> 200" in done.stderr
        assert len(done.stdout.splitlines()) == 1, "the command's own output is untouched"
    assert runs[0].stdout != runs[1].stdout
    ask(running, "journal", "off")


def test_isolate_starts_a_sandyard_where_none_is_named(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(FAILS)
    done = sandyard("run", "--isolation", "none", "--isolate", "--", sys.executable, str(program))
    assert done.returncode == 7, done.stderr
    assert "Sandyard journal" in done.stderr


def test_ids_by_seed_are_the_same_in_each_run(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(FAILS.replace("organizationId", "id").replace("exit(7)", "exit(0)"))
    runs = [
        sandyard("run", "--isolation", "none", "--", sys.executable, str(program), SANDYARD_SEED="7") for _ in range(2)
    ]
    assert runs[0].returncode == 0, runs[0].stderr
    assert runs[0].stdout == runs[1].stdout != ""
