"""Passwords: never on a command line, in an environment, in a message, and never to another host."""

import re
import threading
from pathlib import Path

import pytest

from tests.daemon.conftest import eventually
from tests.daemon.git.conftest import CREDENTIALS, PASSWORD, PERSON, Toolbox, git, make_upstream, with_user
from tests.git_server import GitServer

QUOTED = "pa%20ss%2Fwo%3Ard%40%C3%BC"
SECRETS = (PASSWORD.encode(), QUOTED.encode(), b"pa%20ss/wo%3Ard%40%C3%BC")


def holds_secret(text: bytes) -> bool:
    return any(secret in text for secret in SECRETS)


class Watcher:
    """Reads the command line and the environment of every process there is, as fast as it can."""

    def __init__(self, secrets: tuple[bytes, ...] = SECRETS) -> None:
        self._secrets = secrets
        self.found: list[str] = []
        self.seen: set[bytes] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Watcher":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.is_set():
            for process in Path("/proc").glob("[0-9]*"):
                for name in ("cmdline", "environ"):
                    try:
                        content = (process / name).read_bytes()
                    except OSError:
                        continue
                    self.seen.add(content.split(b"\0")[0]) if name == "cmdline" else None
                    if any(secret in content for secret in self._secrets):
                        self.found.append(f"{name}: {content!r}")


@pytest.mark.parametrize("form", ["fields", "url"])
def test_no_process_shows_a_password(toolbox: Toolbox, server: GitServer, form: str) -> None:
    given = CREDENTIALS if form == "fields" else {}
    url = f"{server.url}/upstream.git"
    url = url if form == "fields" else with_user(url, f"someone:{QUOTED}")
    with Watcher() as watcher:
        toolbox.done("clone", url=url, **given)
        toolbox.commit("new.txt", "x")
        toolbox.done("push", **given)
        toolbox.done("pull", **given)
        toolbox.done("remotes", status=201, name="again", url=url)
        toolbox.done("credentials", None, host="x.y", **CREDENTIALS)
    assert not watcher.found
    assert any(b"git" in name for name in watcher.seen), "the watcher saw nothing of it"


def test_a_hook_finds_no_password_in_its_environment_or_arguments(toolbox: Toolbox, server: GitServer) -> None:
    toolbox.done("clone", url=f"{server.url}/upstream.git", **CREDENTIALS)
    hook = toolbox.home / "repo" / ".git" / "hooks" / "pre-push"
    hook.write_text('#!/bin/sh\n{ env; echo "$@"; cat; cat /proc/$PPID/cmdline /proc/$PPID/environ; } >seen 2>&1\n')
    hook.chmod(0o755)
    toolbox.commit("new.txt", "x")
    toolbox.done("push", **CREDENTIALS)
    seen = (toolbox.home / "repo" / "seen").read_bytes()
    assert b"refs/heads/main" in seen
    assert not holds_secret(seen)


@pytest.mark.parametrize("path", ["upstream.git", "missing/x.git", "forbidden/x.git", "broken/x.git"])
def test_no_message_and_no_line_of_the_log_holds_a_password(toolbox: Toolbox, server: GitServer, path: str) -> None:
    wrong = f"someone:{QUOTED}-wrong"
    url = with_user(f"{server.url}/{path}", wrong)
    answers = [toolbox.post("clone", url=url), toolbox.post("clone", url=f"{server.url}/{path}", **CREDENTIALS)]
    toolbox.repository("other")
    toolbox.done("remotes", "other", status=201, name="origin", url=url)
    answers += [toolbox.post("pull", "other"), toolbox.post("push", "other")]
    for answer in answers:
        assert not holds_secret(answer.body)
        assert not re.search(rb"//[^/ ]*:[^/ ]*@", answer.body)
    toolbox.daemon.process.terminate()
    _, errors = toolbox.daemon.process.communicate(timeout=60)
    assert not holds_secret(errors)


def test_a_server_that_echoes_the_password_is_not_quoted(toolbox: Toolbox, server: GitServer, tmp_path: Path) -> None:
    hook = tmp_path / "served" / "upstream.git" / "hooks" / "pre-receive"
    hook.write_text(f"#!/bin/sh\necho 'you sent {PASSWORD}' >&2\necho 'that is {QUOTED}' >&2\nexit 1\n")
    hook.chmod(0o755)
    toolbox.done("clone", url=f"{server.url}/upstream.git", **CREDENTIALS)
    toolbox.commit("new.txt", "x")
    answer = toolbox.post("push", **CREDENTIALS)
    assert answer.status == 422
    assert b"you sent ***" in answer.body
    assert not holds_secret(answer.body)


def test_a_redirect_to_another_host_gets_no_credentials(toolbox: Toolbox, server: GitServer, tmp_path: Path) -> None:
    thief = GitServer(str(tmp_path / "served"), "someone", "else")
    thief.start()
    try:
        url = f"{server.url}/elsewhere/{thief.address}/upstream.git"
        answer = toolbox.post("clone", url=url, **CREDENTIALS)
        assert (answer.status, answer.json["code"]) == (401, "GIT_AUTH_FAILED")
        assert thief.seen
        assert set(thief.seen) == {""}
    finally:
        thief.stop()


def test_helpers_and_prompts_of_the_user_are_not_asked_when_credentials_are_given(
    toolbox: Toolbox, server: GitServer
) -> None:
    noisy = '!f() { touch "$HOME/asked-$1"; echo username=x; echo password=y; }; f'
    toolbox.done("config", None, key="credential.helper", value=noisy)
    toolbox.done("config", None, key=f"credential.{server.url}.helper", value=noisy)
    toolbox.done("clone", url=f"{server.url}/upstream.git", **CREDENTIALS)
    toolbox.commit("new.txt", "x")
    toolbox.done("push", **CREDENTIALS)
    assert not list(toolbox.home.glob("asked-*"))
    assert toolbox.post("pull").status == 401
    assert (toolbox.home / "asked-get").exists(), "without any the user's own helper is asked"


def test_nothing_asks_on_a_terminal(toolbox: Toolbox, server: GitServer, tmp_path: Path) -> None:
    asks = tmp_path / "asks"
    asks.write_text(f"#!/bin/sh\ntouch {tmp_path}/was-asked\nsleep 60\n")
    asks.chmod(0o755)
    toolbox.daemon.post("/env", {"set": {"GIT_ASKPASS": str(asks), "SSH_ASKPASS": str(asks), "DISPLAY": ":0"}})
    toolbox.done("config", None, key="core.askPass", value=str(asks))
    answer = toolbox.post("clone", url=f"{server.url}/upstream.git")
    assert (answer.status, answer.json["code"]) == (401, "GIT_AUTH_FAILED")
    assert not (tmp_path / "was-asked").exists()


def test_the_file_that_holds_a_password_is_replaced_under_gits_lock(toolbox: Toolbox, repo: Path) -> None:
    (repo / ".git" / "config.lock").touch()
    answer = toolbox.post("remotes", name="origin", url="https://a:secret@x.y/z")
    assert (answer.status, answer.json["code"]) == (409, "CONFLICT")
    assert (repo / ".git" / "config.lock").exists()
    (repo / ".git" / "config.lock").unlink()
    url = 'https://a:se"cr\\et@x.y/z'
    toolbox.done("remotes", status=201, name="origin", url=url)
    assert git(repo, "config", "remote.origin.url").strip() == url
    assert sorted(each.name for each in (repo / ".git").glob("config*")) == ["config"]
    toolbox.done("commit", message="m", allow_empty=True, **PERSON)
    eventually(lambda: not list((repo / ".git").glob("*.lock")))


TOKEN = "ghp_0123456789abcdefghijklmnop"


@pytest.mark.parametrize(
    "user",
    [f"{TOKEN}:", f"{TOKEN}:x-oauth-basic", f"x-access-token:{TOKEN}"],
    ids=["alone", "as name", "as password"],  # pytest puts what it calls a test into the environment
)
def test_a_token_is_a_secret_on_either_side_of_the_colon(toolbox: Toolbox, tmp_path: Path, user: str) -> None:
    name, _, password = user.partition(":")
    tokens = GitServer(str(tmp_path / "tokens"), name, password)
    make_upstream(tmp_path / "tokens")
    hook = tmp_path / "tokens" / "upstream.git" / "hooks" / "pre-receive"
    hook.write_text(f"#!/bin/sh\necho you sent {TOKEN} >&2\nexit 1\n")
    hook.chmod(0o755)
    tokens.start()
    try:
        with Watcher((TOKEN.encode(),)) as watcher:
            toolbox.done("clone", url=with_user(f"{tokens.url}/upstream.git", user))
            toolbox.commit("new.txt", "x")
            answer = toolbox.post("push")
        assert answer.status == 422
        assert TOKEN.encode() not in answer.body
        assert not watcher.found
    finally:
        tokens.stop()


def test_a_url_cannot_smuggle_lines_into_the_credential_protocol(toolbox: Toolbox) -> None:
    answer = toolbox.post("clone", url="http://a:b%0Ahost=evil@127.0.0.1:1/x")
    assert (answer.status, answer.json["code"]) == (400, "BAD_REQUEST")
