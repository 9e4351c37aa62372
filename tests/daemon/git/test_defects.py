"""D33, the defects of the original's git inside its process, one test each."""

import os
import re
from pathlib import Path

from tests.daemon.git.conftest import PERSON, Toolbox, git, refused
from tests.git_server import GitServer


def memory_peak_kib(toolbox: Toolbox) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{toolbox.daemon.process.pid}/status").read_text())
    assert found is not None
    return int(found[1])


def test_d33_a_large_clone_costs_the_daemon_nothing(toolbox: Toolbox, server: GitServer, tmp_path: Path) -> None:
    toolbox.status(toolbox.repository("small"))
    before = memory_peak_kib(toolbox)
    source = tmp_path / "served" / "source"
    for number in range(30):
        (source / f"{number}.bin").write_bytes(os.urandom(1 << 20))
    git(source, "add", ".")
    git(source, "commit", "-q", "-m", "large")
    git(source, "push", "-q", str(tmp_path / "served" / "upstream.git"), "main")
    toolbox.done("clone", url=f"{server.url}/open/upstream.git")
    assert (toolbox.home / "repo" / "29.bin").stat().st_size == 1 << 20
    assert memory_peak_kib(toolbox) < before + 8_000


def test_d33_hooks_run_at_commit(toolbox: Toolbox, repo: Path) -> None:
    hook = repo / ".git" / "hooks" / "commit-msg"
    hook.write_text('#!/bin/sh\necho "Checked-by: hook" >>"$1"\n')
    hook.chmod(0o755)
    toolbox.done("commit", message="m", allow_empty=True, **PERSON)
    assert "Checked-by: hook" in toolbox.get("history").json[0]["message"]


def test_d33_an_empty_commit_is_a_conflict(toolbox: Toolbox, repo: Path) -> None:
    assert refused(toolbox.post("commit", message="m", **PERSON)) == (409, "CONFLICT")


def test_d33_an_existing_branch_is_a_conflict_of_its_own_code(toolbox: Toolbox, repo: Path) -> None:
    assert refused(toolbox.post("branches", name="main")) == (409, "GIT_BRANCH_EXISTS")


def test_d33_deleting_an_unknown_or_the_current_branch_is_refused(toolbox: Toolbox, repo: Path) -> None:
    assert refused(toolbox.delete_branch("nowhere")) == (404, "GIT_BRANCH_NOT_FOUND")
    assert refused(toolbox.delete_branch("main")) == (409, "CONFLICT")


def test_d33_lists_of_a_repository_without_commits_are_empty_and_it_has_a_status(toolbox: Toolbox) -> None:
    toolbox.done("init", status=201)
    assert toolbox.get("branches").json["branches"] == []
    assert toolbox.get("history").json == []
    assert toolbox.status()["fileStatus"] == []


def test_d33_submodules_are_known_to_the_status(toolbox: Toolbox, repo: Path) -> None:
    git(repo, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(toolbox.repository("in")), "sub")
    assert toolbox.files()["sub"] == ("Added", "Unmodified")
