"""Operations without a remote, against what git itself says of the same repository."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.git.conftest import PERSON, Toolbox, git, refused

UNCHANGED = {"ahead": 0, "behind": 0, "branchPublished": False, "upstream": "", "detached": False}


def test_a_new_repository_is_empty_in_every_answer(toolbox: Toolbox) -> None:
    toolbox.done("init", status=201, initial_branch="trunk")
    assert toolbox.status() == {"currentBranch": "trunk", "fileStatus": [], **UNCHANGED}
    assert toolbox.get("branches").json == {"branches": [], "current": "trunk"}
    assert toolbox.get("history").json == []
    assert toolbox.get("remotes").json == {"remotes": []}


def test_init_again_leaves_a_repository_as_it_is(toolbox: Toolbox, repo: Path) -> None:
    toolbox.done("init", status=201, initial_branch="else")
    assert toolbox.get("branches").json == {"branches": ["main"], "current": "main"}


def test_a_bare_repository_has_branches_and_history_and_no_status(toolbox: Toolbox, repo: Path) -> None:
    toolbox.done("init", "bare.git", status=201, bare=True, initial_branch="main")
    git(repo, "push", "-q", str(toolbox.home / "bare.git"), "main")
    assert toolbox.get("branches", "bare.git").json == {"branches": ["main"], "current": "main"}
    assert len(toolbox.get("history", "bare.git").json) == 1
    assert refused(toolbox.get("status", "bare.git")) == (400, "BAD_REQUEST")


def test_status_tells_staged_changes_from_those_of_the_working_tree(toolbox: Toolbox, repo: Path) -> None:
    for name in ("gone", "staged gone", "changed", "staged changed"):
        toolbox.commit(name, "content")
    (repo / "gone").unlink()
    (repo / "staged gone").unlink()
    (repo / "changed").write_text("other")
    (repo / "staged changed").write_text("other")
    (repo / "new").write_text("new")
    toolbox.done("add", files=["staged gone", "staged changed", "new"])
    (repo / "new").write_text("newer")
    (repo / "folder").mkdir()
    (repo / "folder" / "unknown").touch()
    assert toolbox.files() == {
        "gone": ("Unmodified", "Deleted"),
        "staged gone": ("Deleted", "Unmodified"),
        "changed": ("Unmodified", "Modified"),
        "staged changed": ("Modified", "Unmodified"),
        "new": ("Added", "Modified"),
        "folder/unknown": ("Untracked", "Untracked"),
    }


def test_a_rename_has_its_source_in_extra(toolbox: Toolbox, repo: Path) -> None:
    toolbox.commit("old name", "long enough to be recognised\n" * 5)
    git(repo, "mv", "old name", "new name")
    assert toolbox.status()["fileStatus"] == [
        {"name": "new name", "staging": "Renamed", "worktree": "Unmodified", "extra": "old name"}
    ]


@pytest.mark.parametrize(
    "name", ["with space", "line\nend", "tab\t", '"quoted"', "ünï", "-dash", ":colon", "*star", " "]
)
def test_any_name_is_listed_added_committed_and_restored(toolbox: Toolbox, repo: Path, name: str) -> None:
    (repo / name).write_text("x")
    (repo / "bystander").write_text("x")
    assert toolbox.files()[name] == ("Untracked", "Untracked")
    toolbox.done("add", files=[name])
    assert toolbox.files() == {name: ("Added", "Unmodified"), "bystander": ("Untracked", "Untracked")}
    toolbox.done("commit", message="it", **PERSON)
    (repo / name).write_text("changed")
    toolbox.done("restore", files=[name])
    assert (repo / name).read_text() == "x"


def test_a_name_that_is_no_utf8_is_shown_and_added_by_its_folder(toolbox: Toolbox, repo: Path) -> None:
    (repo / "folder").mkdir()
    Path(os.fsdecode(os.fsencode(repo / "folder") + b"/\xff\xfe")).touch()
    assert list(toolbox.files()) == ["folder/\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"]
    toolbox.done("add", files=["folder"])
    toolbox.done("commit", message="bytes", **PERSON)
    assert toolbox.files() == {}


def test_add_takes_everything_a_folder_a_deletion_and_nothing(toolbox: Toolbox, repo: Path) -> None:
    for name in ("a/1", "a/2", "b"):
        (repo / name).parent.mkdir(exist_ok=True)
        (repo / name).touch()
    toolbox.done("add", files=[])
    assert set(toolbox.files().values()) == {("Untracked", "Untracked")}
    toolbox.done("add", files=["a"])
    assert toolbox.files()["a/2"] == ("Added", "Unmodified")
    (repo / "first.txt").unlink()
    toolbox.done("add", files=["."])
    assert toolbox.files()["first.txt"] == ("Deleted", "Unmodified")


def test_an_unknown_file_stages_nothing(toolbox: Toolbox, repo: Path) -> None:
    (repo / "known").touch()
    answer = toolbox.post("add", files=["known", "unknown"])
    assert refused(answer) == (400, "BAD_REQUEST")
    assert "unknown" in answer.json["message"]
    assert toolbox.files() == {"known": ("Untracked", "Untracked")}


def test_a_commit_has_its_author_as_committer_without_any_configuration(toolbox: Toolbox, repo: Path) -> None:
    (repo / "file").touch()
    toolbox.done("add", files=["."])
    made = toolbox.done("commit", message="# not a comment\n\nä body", author="Jö Doe", email="jo@example.com")
    assert git(repo, "log", "-1", "--format=%H|%an|%ae|%cn|%ce|%B").strip() == (
        f"{made['hash']}|Jö Doe|jo@example.com|Jö Doe|jo@example.com|# not a comment\n\nä body"
    )


def test_nothing_to_commit_is_a_conflict_unless_it_is_allowed(toolbox: Toolbox, repo: Path) -> None:
    assert refused(toolbox.post("commit", message="m", **PERSON)) == (409, "CONFLICT")
    (repo / "untracked").touch()
    assert refused(toolbox.post("commit", message="m", **PERSON)) == (409, "CONFLICT")
    toolbox.done("commit", message="m", allow_empty=True, **PERSON)
    assert [each["message"] for each in toolbox.get("history").json] == ["m\n", "first.txt: one\n"]


def test_history_is_newest_first_with_author_and_time(toolbox: Toolbox, repo: Path) -> None:
    second = toolbox.commit("second", "two\n\nwith | and \x1b and ü")
    newest, oldest = toolbox.get("history").json
    assert newest["hash"] == second
    assert newest["message"].endswith("with | and \x1b and ü\n")
    assert (oldest["author"], oldest["email"]) == ("Ann Example", "ann@example.com")
    assert oldest["timestamp"] == git(repo, "log", "--format=%aI", "--reverse").splitlines()[0]


def test_a_new_branch_is_checked_out_with_what_was_staged(toolbox: Toolbox, repo: Path) -> None:
    (repo / "staged").touch()
    toolbox.done("add", files=["staged"])
    assert toolbox.post("branches", name="feature/ä").status == 201
    assert toolbox.get("branches").json == {"branches": ["feature/ä", "main"], "current": "feature/ä"}
    assert toolbox.files() == {"staged": ("Added", "Unmodified")}
    assert refused(toolbox.post("branches", name="main")) == (409, "GIT_BRANCH_EXISTS")


def test_a_branch_is_made_before_the_first_commit(toolbox: Toolbox) -> None:
    toolbox.done("init", status=201)
    assert toolbox.post("branches", name="early").status == 201
    assert toolbox.status()["currentBranch"] == "early"


def test_checkout_takes_branches_and_commits_in_any_form(toolbox: Toolbox, repo: Path) -> None:
    first = git(repo, "rev-parse", "HEAD").strip()
    toolbox.post("branches", name="feature")
    toolbox.commit("second", "two")
    toolbox.done("checkout", branch="main")
    assert not (repo / "second").exists()
    git(repo, "tag", "v1", "feature")
    for name in (first, first[:8], "v1", "feature~1"):
        toolbox.done("checkout", branch=name)
        facts = toolbox.status()
        assert (facts["currentBranch"], facts["detached"]) == ("HEAD", True)
        assert toolbox.get("branches").json["current"] == ""
    toolbox.done("checkout", branch="feature")
    assert toolbox.status()["currentBranch"] == "feature"
    assert refused(toolbox.post("checkout", branch="nowhere")) == (404, "GIT_BRANCH_NOT_FOUND")
    assert refused(toolbox.post("checkout", branch="first.txt")) == (404, "GIT_BRANCH_NOT_FOUND")


def test_unstaged_changes_stop_a_switch_and_stay(toolbox: Toolbox, repo: Path) -> None:
    toolbox.post("branches", name="feature")
    (repo / "first.txt").write_text("precious")
    assert refused(toolbox.post("checkout", branch="main")) == (409, "GIT_DIRTY_WORKTREE")
    assert refused(toolbox.post("branches", name="more")) == (409, "GIT_DIRTY_WORKTREE")
    assert (repo / "first.txt").read_text() == "precious"
    toolbox.done("restore", files=["first.txt"])
    toolbox.commit("new", "of the branch")
    toolbox.done("checkout", branch="main")
    (repo / "new").write_text("precious")
    assert refused(toolbox.post("checkout", branch="feature")) == (409, "GIT_DIRTY_WORKTREE")
    assert (repo / "new").read_text() == "precious"


def test_a_branch_is_deleted_merged_or_not_but_never_the_current_one(toolbox: Toolbox, repo: Path) -> None:
    toolbox.post("branches", name="feature")
    toolbox.commit("second", "two")
    assert refused(toolbox.delete_branch("feature")) == (409, "CONFLICT")
    toolbox.done("checkout", branch="main")
    assert toolbox.delete_branch("feature").status == 204
    assert refused(toolbox.delete_branch("feature")) == (404, "GIT_BRANCH_NOT_FOUND")
    assert toolbox.get("branches").json["branches"] == ["main"]


@pytest.mark.parametrize(
    ("mode", "files"),
    [
        ("soft", {"second": ("Added", "Unmodified")}),
        ("mixed", {"second": ("Untracked", "Untracked")}),
        ("hard", {}),
        ("merge", {}),
        ("keep", {}),
        (None, {"second": ("Untracked", "Untracked")}),
    ],
)
def test_reset_moves_head_as_its_mode_says(
    toolbox: Toolbox, repo: Path, mode: str | None, files: dict[str, tuple[str, str]]
) -> None:
    toolbox.commit("second", "two")
    toolbox.done("reset", mode=mode, target="HEAD~1")
    assert toolbox.files() == files
    assert len(toolbox.get("history").json) == 1


def test_reset_of_files_unstages_them_alone(toolbox: Toolbox, repo: Path) -> None:
    for name in ("one", "two"):
        (repo / name).touch()
    toolbox.done("add", files=["."])
    toolbox.done("reset", files=["one"])
    assert toolbox.files() == {"one": ("Untracked", "Untracked"), "two": ("Added", "Unmodified")}
    toolbox.done("reset")
    assert toolbox.files()["two"] == ("Untracked", "Untracked")
    assert refused(toolbox.post("reset", mode="hard", files=["one"])) == (400, "BAD_REQUEST")
    assert refused(toolbox.post("reset", target="nowhere")) == (404, "GIT_BRANCH_NOT_FOUND")


def test_reset_and_restore_unstage_before_the_first_commit(toolbox: Toolbox) -> None:
    toolbox.done("init", status=201)
    (toolbox.home / "repo" / "file").touch()
    unstaging: dict[str, dict[str, Any]] = {"reset": {}, "restore": {"files": ["file"], "staged": True}}
    for operation, fields in unstaging.items():
        toolbox.done("add", files=["file"])
        assert toolbox.files() == {"file": ("Added", "Unmodified")}
        toolbox.done(operation, **fields)
        assert toolbox.files() == {"file": ("Untracked", "Untracked")}


def test_restore_takes_from_the_index_head_or_a_source(toolbox: Toolbox, repo: Path) -> None:
    toolbox.commit("first.txt", "two\n")
    (repo / "first.txt").write_text("three\n")
    toolbox.done("add", files=["first.txt"])
    toolbox.done("restore", files=["first.txt"], staged=True)
    assert toolbox.files() == {"first.txt": ("Unmodified", "Modified")}
    toolbox.done("restore", files=["first.txt"])
    assert (repo / "first.txt").read_text() == "two\n"
    toolbox.done("restore", files=["."], source="HEAD~1")
    assert (repo / "first.txt").read_text() == "one\n"
    toolbox.done("add", files=["."])
    toolbox.done("restore", files=["first.txt"], staged=True, worktree=True)
    assert toolbox.files() == {}
    assert refused(toolbox.post("restore", files=["unknown"])) == (400, "BAD_REQUEST")
    assert refused(toolbox.post("restore", files=["."], source="nowhere")) == (404, "GIT_BRANCH_NOT_FOUND")
    assert refused(toolbox.post("restore", files=[])) == (400, "BAD_REQUEST")


def test_a_conflict_is_seen_in_the_status_and_stops_what_it_must(toolbox: Toolbox, repo: Path) -> None:
    toolbox.post("branches", name="feature")
    toolbox.commit("first.txt", "theirs")
    toolbox.done("checkout", branch="main")
    toolbox.commit("first.txt", "ours")
    merge = ["git", "-c", "user.name=a", "-c", "user.email=b", "-C", str(repo), "merge", "-q", "feature"]
    assert subprocess.run(merge, capture_output=True, check=False).returncode == 1
    assert toolbox.files() == {"first.txt": ("Updated but unmerged", "Updated but unmerged")}
    for answer in (
        toolbox.post("commit", message="m", **PERSON),
        toolbox.post("checkout", branch="feature"),
        toolbox.post("branches", name="more"),
        toolbox.post("restore", files=["first.txt"]),
        toolbox.post("reset", mode="soft"),
    ):
        assert refused(answer) == (409, "GIT_MERGE_CONFLICT")
    (repo / "first.txt").write_text("both")
    toolbox.done("add", files=["first.txt"])
    toolbox.done("commit", message="merged", **PERSON)
    assert git(repo, "rev-list", "--parents", "-1", "HEAD").count(" ") == 2


def test_a_submodule_is_one_entry(toolbox: Toolbox, repo: Path) -> None:
    inner = toolbox.repository("inner")
    git(repo, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner), "sub")
    assert set(toolbox.files()) == {".gitmodules", "sub"}
    toolbox.done("commit", message="sub", **PERSON)
    (repo / "sub" / "first.txt").write_text("changed")
    assert toolbox.files() == {"sub": ("Unmodified", "Modified")}
    toolbox.done("checkout", branch="main")


def test_ahead_and_behind_are_counted_against_the_upstream(toolbox: Toolbox, repo: Path) -> None:
    git(repo, "branch", "base")
    git(repo, "branch", "--set-upstream-to=base")
    toolbox.commit("second", "two")
    git(repo, "branch", "-f", "base", git(repo, "commit-tree", "-m", "x", "-p", "base", "base^{tree}").strip())
    facts = toolbox.status()
    assert (facts["upstream"], facts["branchPublished"], facts["ahead"], facts["behind"]) == ("base", True, 1, 1)


def test_hooks_run_and_their_refusal_is_told(toolbox: Toolbox, repo: Path) -> None:
    hook = repo / ".git" / "hooks" / "pre-commit"
    hook.write_text("#!/bin/sh\necho 'error: not good enough' >&2\nexit 1\n")
    hook.chmod(0o755)
    (repo / "file").touch()
    toolbox.done("add", files=["file"])
    answer = toolbox.post("commit", message="m", **PERSON)
    assert refused(answer) == (409, "CONFLICT")
    assert "not good enough" in answer.json["message"]


def test_a_held_lock_is_a_conflict(toolbox: Toolbox, repo: Path) -> None:
    (repo / ".git" / "index.lock").touch()
    (repo / "file").touch()
    assert refused(toolbox.post("add", files=["file"])) == (409, "CONFLICT")
    assert toolbox.files() == {"file": ("Untracked", "Untracked")}


def test_paths_start_at_the_work_directory_or_are_absolute(toolbox: Toolbox, repo: Path) -> None:
    (repo / "sub").mkdir()
    for path in ("repo", "./repo/", str(repo), "repo/sub"):
        assert toolbox.status(path)["currentBranch"] == "main"


def test_strict_clients_get_the_keys_they_know(toolbox: Toolbox, repo: Path) -> None:
    old = {"X_Daytona_Source": "sdk-go", "X_Daytona_SDK_Version": "0.143.0"}
    status = toolbox.daemon.get("/git/status?path=repo", **old).json
    assert set(status) == {"currentBranch", "fileStatus", "ahead", "behind", "branchPublished"}
    assert set(toolbox.daemon.get("/git/branches?path=repo", **old).json) == {"branches"}


def test_settings_are_read_and_set_at_each_scope(toolbox: Toolbox, repo: Path) -> None:
    assert toolbox.get("config", key="user.name").json == {"value": None}
    toolbox.done("config/user", None, name="Jö Doe", email="jo@example.com")
    assert toolbox.get("config", key="user.name").json == {"value": "Jö Doe"}
    assert toolbox.get("config", key="user.email", scope="global").json == {"value": "jo@example.com"}
    toolbox.done("config/user", name="Here", email="here@example.com", scope="local")
    assert toolbox.get("config", key="user.name", scope="local").json == {"value": "Here"}
    toolbox.done("config", None, key="alias.two", value='line one\nline "two" \\ -x')
    assert toolbox.get("config", key="alias.two").json == {"value": 'line one\nline "two" \\ -x'}
    toolbox.done("config", None, key="url.https://x.y/z.insteadOf", value="-dash")
    toolbox.done("config", None, key="url.https://x.y/z.insteadOf", value="again")
    assert toolbox.get("config", key="url.https://x.y/z.insteadOf").json == {"value": "again"}


def test_settings_name_what_is_wrong_with_them(toolbox: Toolbox, repo: Path) -> None:
    for key in ("nosection", "a.b_c", "-x.y", "--list", "a.", ".b", "a.b\n.c"):
        assert refused(toolbox.get("config", key=key)) == (400, "BAD_REQUEST")
        assert refused(toolbox.post("config", key=key, value="v")) == (400, "BAD_REQUEST")
    assert refused(toolbox.get("config", key="a.b", scope="worktree")) == (400, "BAD_REQUEST")
    assert refused(toolbox.get("config", "", key="a.b", scope="local")) == (400, "BAD_REQUEST")
    assert refused(toolbox.get("config", "nowhere", key="a.b", scope="local")) == (404, "GIT_REPO_NOT_FOUND")
    (toolbox.home / "plain").mkdir()
    assert refused(toolbox.post("config", "plain", key="a.b", value="v", scope="local")) == (404, "GIT_REPO_NOT_FOUND")


def test_settings_of_the_user_do_not_change_what_is_read(toolbox: Toolbox, repo: Path) -> None:
    toolbox.commit("second", "two")
    git(repo, "branch", "base", "HEAD~1")
    git(repo, "branch", "--set-upstream-to=base")
    (repo / "folder").mkdir()
    (repo / "folder" / "new").touch()
    settings = {
        "status.aheadBehind": "false",
        "status.showUntrackedFiles": "no",
        "status.showStash": "true",
        "color.ui": "always",
        "log.showSignature": "true",
        "log.decorate": "full",
        "format.pretty": "oneline",
        "log.date": "relative",
        "core.quotePath": "true",
        "commit.cleanup": "strip",
        "pull.rebase": "true",
        "clone.defaultRemoteName": "elsewhere",
    }
    for key, value in settings.items():
        toolbox.done("config", None, key=key, value=value)
    facts = toolbox.status()
    assert (facts["ahead"], facts["behind"]) == (1, 0)
    assert toolbox.files() == {"folder/new": ("Untracked", "Untracked")}
    assert [each["message"] for each in toolbox.get("history").json] == ["second: two\n", "first.txt: one\n"]
    assert toolbox.get("branches").json == {"branches": ["base", "main"], "current": "main"}
    toolbox.done("clone", "copy", url=str(repo))
    toolbox.done("pull", "copy")
    assert toolbox.get("remotes", "copy").json["remotes"][0]["name"] == "origin"
