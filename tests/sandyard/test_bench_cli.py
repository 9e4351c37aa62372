"""The commands of the test bench, and `run --isolate`."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

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


UNITTEST = """
import os, unittest
from urllib.request import Request, urlopen

class Agents(unittest.TestCase):
    def ask(self, path, **more):
        headers = {"Authorization": "Bearer " + os.environ["DAYTONA_API_KEY"]}
        return urlopen(Request(os.environ["DAYTONA_API_URL"] + path, headers=headers, **more)).status

    def test_a_sandbox_is_made(self):
        self.assertEqual(self.ask("/sandbox", data=b"{}", method="POST"), 200)

    def test_there_are_two(self):
        self.assertEqual(self.ask("/sandbox/paginated"), 2)
"""
NODE = """
import test from "node:test";
import assert from "node:assert";
const headers = {Authorization: `Bearer ${process.env.DAYTONA_API_KEY}`};
const ask = (path, init) => fetch(process.env.DAYTONA_API_URL + path, {headers, ...init});
test("a sandbox is made", async () => assert.equal((await ask("/sandbox", {method: "POST", body: "{}"})).status, 200));
test("there are two", async () => assert.equal((await ask("/sandbox/paginated")).status, 2));
"""


def test_unittest_under_isolate_reports_as_ever(running: Instance, tmp_path: Path) -> None:
    (tmp_path / "test_agents.py").write_text(UNITTEST)
    environment = {"DAYTONA_API_URL": running.api_url, "DAYTONA_API_KEY": running.api_key}
    command = ("-m", "unittest", "discover", "-v", "-s", str(tmp_path))
    ask(running, "journal", "on")
    done = sandyard("run", "--isolate", "--", sys.executable, *command, **environment)
    ask(running, "journal", "off")
    assert done.returncode == 1
    assert done.stdout == ""
    report, _, journal = done.stderr.partition("FAILED (failures=1)\n")
    assert "test_a_sandbox_is_made (test_agents.Agents.test_a_sandbox_is_made) ... ok" in report
    assert "AssertionError: 200 != 2" in report
    assert "POST /api/sandbox -> 200" in journal


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no Node here")
def test_a_junit_report_under_isolate_is_untouched(running: Instance, tmp_path: Path) -> None:
    (tmp_path / "agents.test.mjs").write_text(NODE)
    environment = {"DAYTONA_API_URL": running.api_url, "DAYTONA_API_KEY": running.api_key}
    command = ("node", "--test", "--test-reporter=junit", str(tmp_path / "agents.test.mjs"))
    done = sandyard("run", "--isolate", "--", *command, **environment)
    assert done.returncode == 1
    cases = {case.get("name"): case.find("failure") for case in ElementTree.fromstring(done.stdout).iter("testcase")}  # noqa: S314
    assert cases["a sandbox is made"] is None
    assert cases["there are two"] is not None


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
