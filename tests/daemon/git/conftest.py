"""A daemon, repositories made by git itself, and a server that speaks smart HTTP and asks for a password."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from tests.daemon.conftest import Answer, Daemon
from tests.git_server import GitServer

jsonschema = pytest.importorskip("jsonschema")

OPENAPI = Path(__file__).parents[4] / "shared" / "contract" / "openapi" / "toolbox.json"
USERNAME, PASSWORD = "someone", "pa ss/wo:rd@ü"
PERSON = {"author": "Ann Example", "email": "ann@example.com"}


def git(directory: Path, *arguments: str, stdin: str | None = None) -> str:
    """What git prints, asked as a user would on a command line of no particular configuration."""
    variables = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"}
    people = {f"GIT_{role}_{key}": f"{key}@x" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
    done = subprocess.run(
        ["git", "-c", "init.defaultBranch=main", "-C", str(directory), *arguments],
        env=variables | people,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Toolbox:
    """`/git` of one daemon; every answer is held against the description of the toolbox."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.home = daemon.home

    def get(self, name: str, path: str | Path = "repo", /, **query: str) -> Answer:
        asked = "&".join(f"{key}={quote(value, safe='')}" for key, value in {"path": str(path), **query}.items())
        return self.checked("GET", f"/git/{name}", self.daemon.get(f"/git/{name}?{asked}"))

    def post(self, name: str, path: str | Path | None = "repo", /, **fields: Any) -> Answer:
        place = {} if path is None else {"path": str(path)}
        return self.checked("POST", f"/git/{name}", self.daemon.post(f"/git/{name}", {**place, **fields}))

    def delete_branch(self, name: str, path: str = "repo") -> Answer:
        answer = self.daemon.ask("DELETE", "/git/branches", {"path": path, "name": name})
        return self.checked("DELETE", "/git/branches", answer)

    def done(self, name: str, path: str | Path | None = "repo", /, **fields: Any) -> Any:
        """A POST that must succeed, by default with 200; its JSON, if it has any."""
        status = fields.pop("status", 200)
        answer = self.post(name, path, **fields)
        assert answer.status == status, answer.body
        return answer.json if answer.body else None

    def status(self, path: str | Path = "repo") -> Any:
        answer = self.get("status", path)
        assert answer.status == 200, answer.body
        return answer.json

    def files(self, path: str | Path = "repo") -> dict[str, tuple[str, str]]:
        """Name to staging and worktree."""
        return {each["name"]: (each["staging"], each["worktree"]) for each in self.status(path)["fileStatus"]}

    def commit(self, name: str, content: str, path: str = "repo") -> str:
        """Write, add and commit one file; the commit's hash."""
        (self.home / path / name).write_text(content)
        self.done("add", path, files=[name])
        return str(self.done("commit", path, message=f"{name}: {content}", **PERSON)["hash"])

    def repository(self, path: str = "repo") -> Path:
        """A fresh repository with one commit on `main`."""
        self.done("init", path, status=201, initial_branch="main")
        self.commit("first.txt", "one\n", path)
        return self.home / path

    def checked(self, method: str, path: str, answer: Answer) -> Answer:
        """The answer, if its body is what the description says of its status."""
        if not OPENAPI.is_file():
            return answer
        description = json.loads(OPENAPI.read_text())
        described = description["paths"][path][method.lower()]["responses"].get(str(answer.status), {})
        schema = described.get("schema")
        if answer.status >= 400:
            schema = {"$ref": "#/definitions/ErrorResponse"}
        if schema is None:
            assert answer.body == b""
        elif not (path == "/git/config" and answer.json == {"value": None}):  # "null when the key is not set"
            jsonschema.validate(answer.json, {**schema, "definitions": description["definitions"]})
        return answer


def refused(answer: Answer) -> tuple[int, str]:
    """Status and code of an error."""
    assert answer.status >= 400, answer.body
    return answer.status, answer.json["code"]


@pytest.fixture
def toolbox(daemon: Daemon) -> Toolbox:
    return Toolbox(daemon)


@pytest.fixture
def repo(toolbox: Toolbox) -> Path:
    """A repository with one commit on `main`, at `repo` in the work directory."""
    return toolbox.repository()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    """Has `upstream.git`, a bare repository with a few commits, behind a password and, below `/open/`, without."""
    root = tmp_path / "served"
    make_upstream(root)
    running = GitServer(str(root), USERNAME, PASSWORD)
    running.start()
    yield running
    running.stop()


def make_upstream(root: Path) -> Path:
    """A bare `upstream.git` with the branches `main` (two commits) and `other`."""
    source, bare = root / "source", root / "upstream.git"
    source.mkdir(parents=True)
    git(source, "init", "-q")
    for number in (1, 2):
        (source / f"{number}.txt").write_text(f"{number}\n")
        git(source, "add", ".")
        git(source, "commit", "-q", "-m", f"commit {number}")
    git(source, "branch", "other", "HEAD~1")
    git(root, "clone", "-q", "--bare", str(source), str(bare))
    git(bare, "config", "http.receivepack", "true")
    return bare


def with_user(url: str, user: str) -> str:
    """The URL with a user part."""
    parts = urlsplit(url)
    return parts._replace(netloc=f"{user}@{parts.netloc}").geturl()


CREDENTIALS: Mapping[str, str] = {"username": USERNAME, "password": PASSWORD}
