"""Git through the proxy by the SDKs, against a smart HTTP server inside the sandbox that asks for a password."""

import base64
import json
import re
import time
import uuid
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.contract.programs import (
    CLIENTS,
    GO_RELEASES,
    NEWEST_PYTHON_SDK,
    bundle,
    go_flow,
    python_with_sdk,
    run_program,
)
from tests.contract.running import Instance
from tests.contract.test_python_releases import RELEASES
from tests.contract.test_typescript import NAMES
from tests.contract.toolbox import Toolbox

SERVER = Path(__file__).parents[1] / "git_server.py"
START_SECONDS = 30.0
UPSTREAM = """
set -e; mkdir -p {root}; cd {root}; echo {program} | base64 -d >git_server.py
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b.c GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b.c
git init -q -b main source; echo 1 >source/1.txt; git -C source add .; git -C source commit -q -m first
git clone -q --bare source upstream.git; git -C upstream.git config http.receivepack true
"""


class Upstream(NamedTuple):
    """A repository served inside a sandbox."""

    toolbox: Toolbox
    url: str
    folder: str
    """An empty place for clones."""


@pytest.fixture
def upstream(shared_toolbox: Toolbox) -> Upstream:
    """One of this test's own."""
    name = f"git-{uuid.uuid4().hex[:8]}"
    root = f"/tmp/{name}"
    script = UPSTREAM.format(root=root, program=base64.b64encode(SERVER.read_bytes()).decode())
    done = shared_toolbox.call("POST", "/process/execute", {"command": script, "timeout": 60}).json()
    assert done.get("exitCode") == 0, done
    shared_toolbox.session(name)
    command = shared_toolbox.run(name, f"exec python3 {root}/git_server.py {root} someone secret", wait=False)
    deadline = time.monotonic() + START_SECONDS
    while not (found := re.search(r"http://127\.0\.0\.1:\d+", _log(shared_toolbox, name, command["cmdId"]))):
        assert time.monotonic() < deadline, "the git server did not start"
        time.sleep(0.1)
    return Upstream(shared_toolbox, f"{found[0]}/upstream.git", f"{root}/clones")


def _log(toolbox: Toolbox, session: str, command: str) -> str:
    return toolbox.call("GET", f"/process/session/{session}/command/{command}/logs").body.decode()


@pytest.mark.sdk
@pytest.mark.parametrize("release", RELEASES)
def test_the_python_sdk_clones_branches_commits_pushes_and_pulls(
    sandyard: Instance, upstream: Upstream, folder: Path, release: str
) -> None:
    program = [python_with_sdk(release), CLIENTS / "python" / "git_flow.py"]
    done = run_program([*program, upstream.toolbox.id, upstream.url, upstream.folder], sandyard, folder)
    assert done.exit_code == 0, done
    saw: dict[str, Any] = json.loads(done.text)
    assert saw["cloned"] == ["main", 0, []]
    assert saw["branches"] is True
    assert saw["changed"] == ["main", 0, [["new file.txt", "Untracked"]]]
    assert saw["committed"] == ["main", 1, []]
    assert saw["pulled"] is True
    assert "not a git repository" in saw["no repository"][1] or "cannot change to" in saw["no repository"][1]
    for refusal in ("no password", "no branch", "no repository", "branch exists"):
        assert saw[refusal][0].startswith("Daytona"), refusal
        assert "secret" not in saw[refusal][1]
    if release == NEWEST_PYTHON_SDK:
        assert_newest(saw)


def assert_newest(saw: dict[str, Any]) -> None:
    """The error classes and calls that older releases do not have."""
    assert saw["no password"][0] == "DaytonaGitAuthFailedError"
    assert saw["no branch"][0] == "DaytonaGitBranchNotFoundError"
    assert saw["no repository"][0] == "DaytonaGitRepoNotFoundError"
    assert saw["branch exists"][0] == "DaytonaGitBranchExistsError"
    assert saw["remote"] == [True, None]
    assert saw["config"] == ["Here", "there@example.com"]
    assert saw["unset"] is None
    assert saw["unstaged"] == ["main", 0, [["new file.txt", "Untracked"]]]
    assert saw["stored"] == "trunk"


@pytest.mark.sdk
def test_the_asynchronous_client_does_the_same(sandyard: Instance, upstream: Upstream, folder: Path) -> None:
    program = [python_with_sdk(NEWEST_PYTHON_SDK), CLIENTS / "python" / "git_async_flow.py"]
    done = run_program([*program, upstream.toolbox.id, upstream.url, upstream.folder], sandyard, folder)
    assert done.exit_code == 0, done
    assert json.loads(done.text) == {
        "status": ["async", "origin/async", 0],
        "branches": ["async", "main"],
        "pulled": True,
        "no password": "DaytonaGitAuthFailedError",
    }


@pytest.mark.sdk
@pytest.mark.parametrize("name", NAMES)
def test_the_typescript_sdk_does_the_same(sandyard: Instance, upstream: Upstream, folder: Path, name: str) -> None:
    source = CLIENTS / "typescript" / "git_flow.ts"
    target = Path("git-flow-" + name.strip("@").replace("/", "-") + ".mjs")
    options = ("--format=esm", "--platform=node", "--bundle", "--packages=external", f"--alias:the-sdk={name}")
    program = bundle(source, target, *options)
    done = run_program(["node", program, upstream.toolbox.id, upstream.url, upstream.folder], sandyard, folder)
    assert done.exit_code == 0, done
    saw = json.loads(done.text)
    assert saw["changed"] == [True, [["new file.txt", "Untracked"]]]
    assert saw["pulled"] is True
    assert saw["branches"] == ["main"]
    assert saw["noPassword"] in ("DaytonaAuthenticationError", "DaytonaGitAuthFailedError")
    assert saw["exists"] in ("DaytonaConflictError", "DaytonaGitBranchExistsError")
    assert saw["noBranch"] in ("DaytonaNotFoundError", "DaytonaGitBranchNotFoundError")
    assert saw["noRepository"] in ("DaytonaNotFoundError", "DaytonaGitRepoNotFoundError")
    assert (saw.get("remote", True), saw.get("config", "Here")) == (True, "Here")


def test_a_password_is_nowhere_in_what_sandyard_writes(sandyard: Instance, upstream: Upstream) -> None:
    body = {"url": upstream.url, "path": upstream.folder, "username": "someone", "password": "hush-hush-7"}
    answer = upstream.toolbox.call("POST", "/git/clone", body)
    assert (answer.status, answer.json()["code"]) == (401, "GIT_AUTH_FAILED")
    assert b"hush-hush-7" not in answer.body
    assert "hush-hush-7" not in sandyard.log


@pytest.mark.sdk
@pytest.mark.parametrize("release", GO_RELEASES)
def test_the_go_sdk_does_the_same(sandyard: Instance, upstream: Upstream, folder: Path, release: str) -> None:
    saw = go_flow(release, "git", sandyard, folder, upstream.toolbox.id, upstream.url, upstream.folder)
    assert saw["cloned"] == ["main", 0, 0, True, []]
    assert saw["changed"] == ["main", 0, 0, True, [["1.txt", " M"], ["new file.txt", "??"]]]
    assert saw["added"] == ["main", 0, 0, True, [["1.txt", "M "], ["new file.txt", "A "]]]
    assert (saw["sha"], saw["log"]) == (40, "Go go@example.com second")
    assert saw["committed"] == ["main", 1, 0, True, []]
    assert saw["pushed"] == ["main", 0, 0, True, []]
    assert saw["pulled"] == "new\n"
    assert (saw["side"], saw["branches"], saw["left"]) == ("side", ["main", "side"], ["main"])
    assert saw["atCommit"] == "1.txt\n"
    for refusal in ("noPassword", "wrongPassword", "pushWithout"):
        assert saw[refusal][0] == "DaytonaError"
        assert saw[refusal][2] == 401, refusal
        assert "hush-hush" not in saw[refusal][1]
    assert saw["branchExists"][2] == 409
    assert saw["nothingToCommit"][2] == 409
    assert saw["noBranch"][0] == saw["noRepository"][0] == "DaytonaNotFoundError"
