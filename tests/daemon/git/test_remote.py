"""Clone, pull, push and remotes: over smart HTTP with a password, over paths and file URLs."""

from pathlib import Path

import pytest

from tests.daemon.git.conftest import CREDENTIALS, PASSWORD, PERSON, Toolbox, git, refused, with_user
from tests.git_server import GitServer


def test_clone_edit_push_and_pull_with_credentials_that_are_not_stored(toolbox: Toolbox, server: GitServer) -> None:
    url = f"{server.url}/upstream.git"
    for path in ("repo", "deep/second"):
        toolbox.done("clone", path, url=url, **CREDENTIALS)
    assert toolbox.status() == {
        "currentBranch": "main",
        "fileStatus": [],
        "ahead": 0,
        "behind": 0,
        "branchPublished": True,
        "upstream": "origin/main",
        "detached": False,
    }
    made = toolbox.commit("new.txt", "new")
    assert toolbox.status()["ahead"] == 1
    assert refused(toolbox.post("push")) == (401, "GIT_AUTH_FAILED")
    toolbox.done("push", **CREDENTIALS)
    toolbox.done("push", **CREDENTIALS)
    assert toolbox.status()["ahead"] == 0
    assert refused(toolbox.post("pull", "deep/second")) == (401, "GIT_AUTH_FAILED")
    toolbox.done("pull", "deep/second", **CREDENTIALS)
    toolbox.done("pull", "deep/second", **CREDENTIALS)
    assert toolbox.get("history", "deep/second").json[0]["hash"] == made
    assert toolbox.get("remotes").json == {"remotes": [{"name": "origin", "url": url}]}
    kept = [file.read_bytes() for file in toolbox.home.rglob("*") if file.is_file() and ".sandyard" not in str(file)]
    assert not any(PASSWORD.encode() in content for content in kept)


def test_a_clone_takes_one_branch_a_depth_or_a_commit(toolbox: Toolbox, server: GitServer, tmp_path: Path) -> None:
    url = f"{server.url}/open/upstream.git"
    toolbox.done("clone", "branch", url=url, branch="other")
    assert toolbox.get("branches", "branch").json == {"branches": ["other"], "current": "other"}
    assert git(toolbox.home / "branch", "branch", "-r", "--format=%(refname:short)").split() == ["origin/other"]
    toolbox.done("clone", "shallow", url=url, depth=1)
    assert len(toolbox.get("history", "shallow").json) == 1
    first = git(tmp_path / "served" / "upstream.git", "rev-parse", "main~1").strip()
    for path, commit in (("full", first), ("short", first[:9])):
        toolbox.done("clone", path, url=url, commit_id=commit)
        assert toolbox.status(path)["detached"] is True
        assert [each["hash"] for each in toolbox.get("history", path).json] == [first]
        assert toolbox.files(path) == {}
    for commit in ("0123456789", "0" * 40):
        answer = toolbox.post("clone", f"none-{len(commit)}", url=url, commit_id=commit)
        assert refused(answer) == (404, "GIT_BRANCH_NOT_FOUND")


def test_a_commit_beyond_the_depth_is_asked_for_by_its_hash(
    toolbox: Toolbox, server: GitServer, tmp_path: Path
) -> None:
    upstream = tmp_path / "served" / "upstream.git"
    git(upstream, "config", "uploadpack.allowAnySHA1InWant", "true")
    first = git(upstream, "rev-parse", "main~1").strip()
    toolbox.done("clone", url=f"{server.url}/upstream.git", commit_id=first, depth=1, **CREDENTIALS)
    assert [each["hash"] for each in toolbox.get("history").json] == [first]


def test_an_empty_repository_is_cloned_filled_and_pushed(toolbox: Toolbox, server: GitServer, tmp_path: Path) -> None:
    git(tmp_path / "served", "init", "-q", "--bare", "empty.git")
    git(tmp_path / "served" / "empty.git", "config", "http.receivepack", "true")
    toolbox.done("clone", url=f"{server.url}/empty.git", **CREDENTIALS)
    assert toolbox.get("branches").json == {"branches": [], "current": "main"}
    assert refused(toolbox.post("pull", **CREDENTIALS)) == (404, "GIT_BRANCH_NOT_FOUND")
    assert refused(toolbox.post("push", **CREDENTIALS)) == (404, "GIT_BRANCH_NOT_FOUND")
    toolbox.commit("file", "content")
    toolbox.done("push", set_upstream=True, **CREDENTIALS)
    assert toolbox.status()["upstream"] == "origin/main"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("upstream.git", (401, "GIT_AUTH_FAILED")),
        ("forbidden/upstream.git", (403, "FORBIDDEN")),
        ("missing/upstream.git", (404, "GIT_REPO_NOT_FOUND")),
        ("open/nothing.git", (404, "GIT_REPO_NOT_FOUND")),
        ("broken/upstream.git", (502, "GIT_TRANSPORT_FAILED")),
    ],
)
def test_a_refusing_server_has_the_class_of_its_refusal(
    toolbox: Toolbox, server: GitServer, path: str, expected: tuple[int, str]
) -> None:
    url = f"{server.url}/{path}"
    assert refused(toolbox.post("clone", url=url)) == expected
    assert refused(toolbox.post("clone", url=url, username="someone", password="wrong")) == expected
    assert not (toolbox.home / "repo").exists()
    toolbox.repository()
    toolbox.done("remotes", status=201, name="origin", url=url)
    assert refused(toolbox.post("pull")) == expected
    assert refused(toolbox.post("push")) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:1/x.git", (502, "GIT_TRANSPORT_FAILED")),
        ("http://nowhere.invalid/x.git", (502, "GIT_TRANSPORT_FAILED")),
        ("/nowhere", (404, "GIT_REPO_NOT_FOUND")),
        ("file:///nowhere", (404, "GIT_REPO_NOT_FOUND")),
        ("ext::sh -c true", (400, "BAD_REQUEST")),
        ("unknown://host/x", (400, "BAD_REQUEST")),
        ("--upload-pack=touch broken", (404, "GIT_REPO_NOT_FOUND")),
        ("ssh://-oProxyCommand=touch/x", (400, "BAD_REQUEST")),
    ],
)
def test_a_url_that_leads_nowhere_is_told(toolbox: Toolbox, url: str, expected: tuple[int, str]) -> None:
    answer = toolbox.post("clone", url=url)
    assert refused(answer) == expected, answer.json
    assert not (toolbox.home / "repo").exists()


def test_a_clone_leaves_alone_what_is_there(toolbox: Toolbox, server: GitServer) -> None:
    toolbox.repository()
    answer = toolbox.post("clone", url=f"{server.url}/open/upstream.git")
    assert refused(answer) == (409, "CONFLICT")
    assert refused(toolbox.post("clone", "repo/first.txt", url=f"{server.url}/open/upstream.git"))[0] in (400, 409)
    answer = toolbox.post("clone", "other", url=f"{server.url}/open/upstream.git", branch="nowhere")
    assert refused(answer) == (404, "GIT_BRANCH_NOT_FOUND")


def test_histories_that_diverged_are_neither_pushed_nor_merged(toolbox: Toolbox, server: GitServer) -> None:
    for path in ("repo", "second"):
        toolbox.done("clone", path, url=f"{server.url}/upstream.git", **CREDENTIALS)
        toolbox.commit("new.txt", path, path)
    toolbox.done("push", "second", **CREDENTIALS)
    assert refused(toolbox.post("push", **CREDENTIALS)) == (409, "GIT_PUSH_REJECTED")
    assert refused(toolbox.post("pull", **CREDENTIALS)) == (409, "GIT_MERGE_CONFLICT")
    assert toolbox.status()["behind"] == 1
    toolbox.done("reset", mode="hard", target="HEAD~1")
    (toolbox.home / "repo" / "new.txt").write_text("precious")
    assert refused(toolbox.post("pull", **CREDENTIALS)) == (409, "GIT_DIRTY_WORKTREE")
    assert (toolbox.home / "repo" / "new.txt").read_text() == "precious"


def test_a_server_that_refuses_a_push_is_told_from_one_that_is_ahead(
    toolbox: Toolbox, server: GitServer, tmp_path: Path
) -> None:
    hook = tmp_path / "served" / "upstream.git" / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho protected: fatal: Authentication failed for you >&2\nexit 1\n")
    hook.chmod(0o755)
    toolbox.done("clone", url=f"{server.url}/upstream.git", **CREDENTIALS)
    toolbox.commit("new.txt", "x")
    answer = toolbox.post("push", **CREDENTIALS)
    assert refused(answer) == (422, "GIT_REMOTE_REJECTED")
    assert "protected" in answer.json["message"]


def test_push_and_pull_take_a_branch_and_a_remote(toolbox: Toolbox, server: GitServer, tmp_path: Path) -> None:
    repo = toolbox.repository()
    url = f"{server.url}/open/upstream.git"
    toolbox.done("remotes", status=201, name="up", url=url, fetch=True)
    fetched = git(repo, "branch", "-r", "--format=%(refname:lstrip=2)").split()
    assert [name for name in fetched if name != "up/HEAD"] == [
        "up/main",
        "up/other",
    ]  # git 2.48 and later: HEAD as well
    assert refused(toolbox.post("pull")) == (404, "NOT_FOUND")
    assert refused(toolbox.post("push", remote="nowhere")) == (404, "NOT_FOUND")
    assert refused(toolbox.post("pull", remote="up", branch="main")) == (409, "GIT_MERGE_CONFLICT")
    toolbox.post("branches", name="feature")
    toolbox.done("push", remote="up", branch="feature", set_upstream=True)
    assert toolbox.status()["upstream"] == "up/feature"
    assert "feature" in git(tmp_path / "served" / "upstream.git", "branch")
    assert refused(toolbox.post("push", remote="up", branch="nowhere")) == (404, "GIT_BRANCH_NOT_FOUND")
    assert refused(toolbox.post("pull", remote="up", branch="nowhere")) == (404, "GIT_BRANCH_NOT_FOUND")
    toolbox.done("pull")
    toolbox.done("checkout", branch="up/other")
    for name in ("pull", "push"):
        assert refused(toolbox.post(name, remote="up")) == (404, "GIT_BRANCH_NOT_FOUND")
    toolbox.done("pull", remote="up", branch="main")
    assert toolbox.status()["detached"] is True


def test_a_branch_only_the_remote_has_is_checked_out_to_track_it(toolbox: Toolbox, server: GitServer) -> None:
    toolbox.repository()
    toolbox.done("remotes", status=201, name="origin", url=f"{server.url}/open/upstream.git", fetch=True)
    toolbox.done("checkout", branch="other")
    assert toolbox.status()["upstream"] == "origin/other"


def test_remotes_are_added_once_unless_they_are_overwritten(toolbox: Toolbox, repo: Path, server: GitServer) -> None:
    toolbox.done("remotes", status=201, name="origin", url="/one")
    assert refused(toolbox.post("remotes", name="origin", url="/two")) == (409, "CONFLICT")
    toolbox.done("remotes", status=201, name="origin", url="/two", overwrite=True)
    toolbox.done("remotes", status=201, name="a.b/c", url="-x", overwrite=True)
    listed = [{"name": "origin", "url": "/two"}, {"name": "a.b/c", "url": "-x"}]
    assert toolbox.get("remotes").json == {"remotes": listed}
    assert refused(toolbox.post("remotes", name="x", url="/nowhere", fetch=True)) == (404, "GIT_REPO_NOT_FOUND")


def test_paths_and_file_urls_are_the_users_own_right(toolbox: Toolbox, repo: Path) -> None:
    for number, url in enumerate((str(repo), f"file://{repo}", "repo")):
        toolbox.done("clone", f"clone-{number}", url=url, depth=1)
        assert len(toolbox.get("history", f"clone-{number}").json) == 1
    toolbox.commit("second", "two", "clone-0")
    toolbox.post("branches", "clone-0", name="feature")
    toolbox.done("push", "clone-0")
    toolbox.done("checkout", branch="feature")
    assert refused(toolbox.post("push", "clone-0", **CREDENTIALS)) == (400, "BAD_REQUEST")


def test_credentials_in_a_url_work_and_stay_where_git_keeps_them(toolbox: Toolbox, server: GitServer) -> None:
    url = with_user(f"{server.url}/upstream.git", "someone:pa%20ss%2Fwo%3Ard%40%C3%BC")
    toolbox.done("clone", url=url)
    toolbox.done("pull")
    toolbox.commit("new.txt", "x")
    toolbox.done("push")
    assert toolbox.get("remotes").json["remotes"][0]["url"] == url
    toolbox.done("remotes", status=201, name="again", url=url, fetch=True)
    toolbox.done("remotes", status=201, name="again", url=url, fetch=True, overwrite=True)
    assert git(toolbox.home / "repo", "config", "remote.again.url").strip() == url


def test_stored_credentials_are_used_by_git_from_then_on(toolbox: Toolbox, server: GitServer) -> None:
    toolbox.done("credentials", None, host=server.address, protocol="http", **CREDENTIALS)
    toolbox.done("credentials", None, username="a", password="b")
    toolbox.done("clone", url=f"{server.url}/upstream.git")
    toolbox.commit("new.txt", "x")
    toolbox.done("push")
    store = toolbox.home / ".git-credentials"
    assert store.stat().st_mode & 0o077 == 0
    assert "https://a:b@github.com\n" in store.read_text()
    assert git(toolbox.home, "config", "--file", ".gitconfig", "--get-all", "credential.helper") == "store\n"
    for wrong in ({"host": "a/b"}, {"host": "a b"}, {"protocol": "x y"}, {"username": "a\nhost=b"}, {"password": ""}):
        answer = toolbox.post("credentials", None, **{**CREDENTIALS, **wrong})
        assert refused(answer) == (400, "INVALID_REQUEST_BODY")


def test_a_person_named_in_the_environment_of_the_sandbox_is_known_to_git(toolbox: Toolbox, repo: Path) -> None:
    hook = repo / ".git" / "hooks" / "post-commit"
    hook.write_text('#!/bin/sh\nprintf %s "$FLAVOUR" >flavour\n')
    hook.chmod(0o755)
    toolbox.daemon.post("/env", {"set": {"FLAVOUR": "plum", "GIT_DIR": "/nowhere", "GIT_INDEX_FILE": "/nowhere"}})
    toolbox.done("commit", message="m", allow_empty=True, **PERSON)
    assert (repo / "flavour").read_text() == "plum"
