"""Bad input on every operation: a clear 4xx with the envelope, and nothing of it read as an option."""

from pathlib import Path
from typing import Any

import pytest

from tests.daemon.git.conftest import PERSON, Toolbox, git, refused

WRONG: tuple[Any, ...] = (None, 7, {}, "", "a\0b", [7], ["a\0b"], [""])
WRONG_OPTIONS: tuple[Any, ...] = ({}, [7], 1.5)
BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "add"): {"path": "repo", "files": ["."]},
    ("POST", "branches"): {"path": "repo", "name": "b"},
    ("DELETE", "branches"): {"path": "repo", "name": "b"},
    ("POST", "checkout"): {"path": "repo", "branch": "b"},
    ("POST", "clone"): {"path": "repo", "url": "/nowhere"},
    ("POST", "commit"): {"path": "repo", "message": "m", **PERSON},
    ("POST", "config"): {"key": "a.b", "value": "v"},
    ("POST", "config/user"): {"name": "n", "email": "e"},
    ("POST", "credentials"): {"username": "u", "password": "p"},
    ("POST", "init"): {"path": "repo"},
    ("POST", "pull"): {"path": "repo"},
    ("POST", "push"): {"path": "repo"},
    ("POST", "remotes"): {"path": "repo", "name": "n", "url": "/u"},
    ("POST", "reset"): {"path": "repo"},
    ("POST", "restore"): {"path": "repo", "files": ["f"]},
}
OPTIONAL: dict[str, tuple[str, ...]] = {
    "clone": ("branch", "commit_id", "username", "password", "depth", "insecure_skip_tls"),
    "commit": ("allow_empty",),
    "config": ("scope", "path"),
    "config/user": ("scope", "path"),
    "credentials": ("host", "protocol"),
    "init": ("bare", "initial_branch"),
    "pull": ("branch", "remote", "username", "password"),
    "push": ("branch", "remote", "username", "password", "set_upstream"),
    "remotes": ("fetch", "overwrite"),
    "reset": ("mode", "target", "files"),
    "restore": ("staged", "worktree", "source"),
}
QUERIES = ("status", "branches", "history", "remotes")
IN_A_REPOSITORY = [key for key, body in BODIES.items() if "path" in body and key[1] not in ("clone", "init")]


def ask(toolbox: Toolbox, operation: tuple[str, str], body: Any) -> tuple[int, str]:
    method, name = operation
    answer = toolbox.daemon.ask(method, f"/git/{name}", body)
    return refused(toolbox.checked(method, f"/git/{name}", answer))


@pytest.mark.parametrize("operation", BODIES, ids=" ".join)
def test_every_field_has_its_type(toolbox: Toolbox, operation: tuple[str, str]) -> None:
    good = BODIES[operation]
    for body in (b"", b"{", b"[]", b"null", b'"x"', b"\xff"):
        assert ask(toolbox, operation, body) == (400, "INVALID_REQUEST_BODY")
    for name in good:
        missing = {key: value for key, value in good.items() if key != name}
        assert ask(toolbox, operation, missing) == (400, "INVALID_REQUEST_BODY"), name
        for wrong in WRONG:
            assert ask(toolbox, operation, {**good, name: wrong}) == (400, "INVALID_REQUEST_BODY"), (name, wrong)
    for name in OPTIONAL.get(operation[1], ()) if operation[0] == "POST" else ():
        for wrong in WRONG_OPTIONS:
            assert ask(toolbox, operation, {**good, name: wrong}) == (400, "INVALID_REQUEST_BODY"), (name, wrong)


@pytest.mark.parametrize("name", QUERIES)
def test_the_path_of_a_query_is_required(toolbox: Toolbox, name: str) -> None:
    for query in ("", "?path=", "?path=%20", "?path=a%00b", "?other=x"):
        assert refused(toolbox.daemon.get(f"/git/{name}{query}")) == (400, "BAD_REQUEST")


def test_the_key_of_a_setting_is_required(toolbox: Toolbox) -> None:
    for query in ("", "?key=", "?key=a%00b.c"):
        assert refused(toolbox.daemon.get(f"/git/config{query}")) == (400, "BAD_REQUEST")


@pytest.mark.parametrize("place", ["nowhere", "plain", "file", "plain/.."])
def test_a_place_without_a_repository_is_not_found(toolbox: Toolbox, place: str) -> None:
    (toolbox.home / "plain").mkdir()
    (toolbox.home / "file").touch()
    for name in QUERIES:
        assert refused(toolbox.get(name, place)) == (404, "GIT_REPO_NOT_FOUND"), name
    for operation in IN_A_REPOSITORY:
        assert ask(toolbox, operation, {**BODIES[operation], "path": place}) == (404, "GIT_REPO_NOT_FOUND"), operation


@pytest.mark.parametrize(
    "name",
    ["-d", "--force", "-", "a b", "a..b", "a~1", "@{-1}", "a.lock", "/a", "a/", ".a", "a\nb", "a:b", "@", "a\\b"],
)
def test_a_name_that_git_would_not_take_is_refused(toolbox: Toolbox, repo: Path, name: str) -> None:
    asked: list[tuple[tuple[str, str], dict[str, str]]] = [
        (("POST", "branches"), {"name": name}),
        (("DELETE", "branches"), {"name": name}),
        (("POST", "clone"), {"branch": name, "path": "else"}),
        (("POST", "init"), {"initial_branch": name, "path": "else"}),
        (("POST", "pull"), {"branch": name, "remote": "origin"}),
        (("POST", "push"), {"branch": name}),
        (("POST", "push"), {"remote": name}),
        (("POST", "pull"), {"remote": name, "branch": "main"}),
        (("POST", "remotes"), {"name": name}),
    ]
    for operation, fields in asked:
        status, code = ask(toolbox, operation, {**BODIES[operation], **fields})
        assert (status, code) in ((400, "BAD_REQUEST"), (400, "INVALID_REQUEST_BODY")), operation
    assert git(repo, "branch", "--format=%(refname:short)").split() == ["main"]
    assert not (toolbox.home / "else").exists()


@pytest.mark.parametrize("name", ["-f", "--detach", "--orphan=x", "-", "--output=x"])
def test_a_revision_is_never_an_option(toolbox: Toolbox, repo: Path, name: str) -> None:
    (repo / "first.txt").write_text("precious")
    for operation, field in (
        ("checkout", "branch"),
        ("reset", "target"),
        ("restore", "source"),
        ("clone", "commit_id"),
    ):
        body = {**BODIES["POST", operation], field: name}
        assert ask(toolbox, ("POST", operation), body) == (400, "BAD_REQUEST")
    assert (repo / "first.txt").read_text() == "precious"


def test_paths_outside_the_repository_are_refused(toolbox: Toolbox, repo: Path) -> None:
    for name in ("../outside", "/etc/passwd"):
        for operation in ("add", "restore"):
            assert ask(toolbox, ("POST", operation), {"path": "repo", "files": [name]}) == (400, "BAD_REQUEST"), name


def test_many_files_with_long_names_fit_into_one_call(toolbox: Toolbox, repo: Path) -> None:
    names = [f"{number:04}-" + "x" * 200 for number in range(3000)]
    for name in names:
        (repo / name).touch()
    toolbox.done("add", files=names)
    assert len(toolbox.files()) == 3000
    toolbox.done("reset", files=names)
    assert set(toolbox.files().values()) == {("Untracked", "Untracked")}


def test_people_and_scopes_that_make_no_sense_are_refused(toolbox: Toolbox, repo: Path) -> None:
    for fields in ({"author": "a\nb"}, {"email": "a\nb"}):
        body = {**BODIES["POST", "commit"], **fields}
        assert ask(toolbox, ("POST", "commit"), body) == (400, "INVALID_REQUEST_BODY")
    crud = {**BODIES["POST", "commit"], "author": "<>", "allow_empty": True}
    assert ask(toolbox, ("POST", "commit"), crud) == (400, "BAD_REQUEST")
    for name in ("config", "config/user"):
        for fields in ({"scope": "worktree"}, {"scope": "local"}):
            assert ask(toolbox, ("POST", name), {**BODIES["POST", name], **fields}) == (400, "BAD_REQUEST")
    assert ask(toolbox, ("POST", "reset"), {"path": "repo", "mode": "harder"}) == (400, "BAD_REQUEST")
    for depth in (-1, True, 1 << 40):
        body = {**BODIES["POST", "clone"], "depth": depth}
        assert ask(toolbox, ("POST", "clone"), body) == (400, "INVALID_REQUEST_BODY")
