"""What git costs and how it ends: with its client, with the daemon, at its deadline; and what is said without it."""

import asyncio
import http.client
import os
import re
import shutil
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandyard_daemon.children import Children
from sandyard_daemon.environment import Environment
from sandyard_daemon.git.errors import GitFailed, TookTooLong
from sandyard_daemon.git.process import Command, Git
from sandyard_daemon.wire import DOOR_HEADER
from tests.daemon.conftest import SECRET, Daemon, DoorConnection, eventually
from tests.daemon.git.conftest import CREDENTIALS, PERSON, Toolbox, git, refused
from tests.daemon.processes import children_of, descriptors, is_alive
from tests.git_server import GitServer

HEADERS = {DOOR_HEADER: SECRET}


def git_processes(daemon: Daemon) -> list[int]:
    return children_of(daemon.process.pid)


def test_a_sandbox_without_git_says_what_to_install(toolbox: Toolbox, tmp_path: Path) -> None:
    toolbox.daemon.post("/env", {"set": {"PATH": str(tmp_path)}})
    for answer in (toolbox.get("status"), toolbox.post("clone", url="/x"), toolbox.get("config", key="a.b")):
        assert refused(answer) == (500, "INTERNAL_SERVER_ERROR")
        assert "install the package `git`" in answer.json["message"]


def test_a_git_that_is_too_old_is_named_as_such(toolbox: Toolbox, tmp_path: Path) -> None:
    old = tmp_path / "git"
    old.write_text("#!/bin/sh\necho 'error: unknown option' >&2\nexit 129\n")
    old.chmod(0o755)
    toolbox.daemon.post("/env", {"set": {"PATH": f"{tmp_path}:/usr/bin:/bin"}})
    answer = toolbox.get("status")
    assert refused(answer) == (500, "INTERNAL_SERVER_ERROR")
    assert "2.25 or later is needed" in answer.json["message"]


def test_git_ends_when_its_client_goes(toolbox: Toolbox, server: GitServer) -> None:
    before = descriptors(toolbox.daemon)
    connection = DoorConnection(toolbox.daemon.door)
    body = b'{"path": "repo", "url": "%s/silent/x.git"}' % server.url.encode()
    connection.request("POST", "/git/clone", body, HEADERS)
    assert server.waiting.wait(60)
    assert git_processes(toolbox.daemon)
    connection.close()
    eventually(lambda: not git_processes(toolbox.daemon))
    eventually(lambda: not (toolbox.home / "repo").exists())
    eventually(lambda: descriptors(toolbox.daemon) == before)


def test_git_ends_with_the_daemon(toolbox: Toolbox, server: GitServer) -> None:
    client = toolbox.daemon.raw_post("/git/clone", b'{"path": "r", "url": "%s/silent/x"}' % server.url.encode())
    assert server.waiting.wait(60)
    (running,) = git_processes(toolbox.daemon)
    toolbox.daemon.process.terminate()
    toolbox.daemon.process.wait(60)
    eventually(lambda: not is_alive(running))
    client.close()


def test_nothing_is_left_of_many_operations(toolbox: Toolbox, server: GitServer) -> None:
    toolbox.done("clone", url=f"{server.url}/upstream.git", **CREDENTIALS)
    before = descriptors(toolbox.daemon)
    for _ in range(20):
        toolbox.done("pull", **CREDENTIALS)
        toolbox.status()
        refused(toolbox.post("clone", "nowhere", url="/nowhere"))
        refused(toolbox.get("history", "nowhere"))
        refused(toolbox.post("push"))
    # What belonged to the clone, or to git's own housekeeping behind a pull, may be ending still.
    eventually(lambda: descriptors(toolbox.daemon) <= before)
    eventually(lambda: not git_processes(toolbox.daemon))
    listed = os.listdir(toolbox.home / ".sandyard")
    assert all(os.listdir(toolbox.home / ".sandyard" / name) == ["lock"] for name in listed)


def test_a_process_a_hook_leaves_behind_is_not_waited_for(toolbox: Toolbox, repo: Path) -> None:
    hook = repo / ".git" / "hooks" / "post-commit"
    hook.write_text("#!/bin/sh\nsleep 300 &\necho $! >pid\n")
    hook.chmod(0o755)
    toolbox.done("commit", message="m", allow_empty=True, **PERSON)
    left = int((repo / "pid").read_text())
    try:
        assert Path(f"/proc/{left}").exists()
    finally:
        os.kill(left, 9)


def test_a_status_of_100_000_files_and_a_long_history_are_made_while_they_are_sent(
    toolbox: Toolbox, repo: Path
) -> None:
    blob = git(repo, "hash-object", "-w", "--stdin", stdin="x").strip()
    names = (
        f"100644 {blob} 0\tfolder-{number % 100}/a-rather-long-name-of-a-file-{number:06}" for number in range(100_000)
    )
    git(repo, "update-index", "--index-info", stdin="\n".join(names) + "\n")
    parts = (
        f"commit refs/heads/main\ncommitter A <a@b.c> {number} +0000\ndata 1000\n{'m' * 1000}\n"
        for number in range(20_000)
    )
    git(repo, "fast-import", "--quiet", "--force", stdin="".join(parts))
    assert len(toolbox.daemon.get("/git/status?path=repo").json["fileStatus"]) > 100_000
    assert len(toolbox.daemon.get("/git/history?path=repo").json) == 20_000
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{toolbox.daemon.process.pid}/status").read_text())
    assert peak is not None
    assert int(peak[1]) < 40_000


def test_a_client_that_stops_reading_holds_git_back_and_takes_it_along(toolbox: Toolbox, repo: Path) -> None:
    parts = (
        f"commit refs/heads/main\ncommitter A <a@b.c> {number} +0000\ndata 1000\n{'m' * 1000}\n"
        for number in range(20_000)
    )
    git(repo, "fast-import", "--quiet", "--force", stdin="".join(parts))
    connection = DoorConnection(toolbox.daemon.door)
    connection.request("GET", "/git/history?path=repo", headers=HEADERS)
    connection.getresponse().read(1000)
    assert git_processes(toolbox.daemon)
    assert toolbox.daemon.get("/version").status == 200
    connection.close()
    eventually(lambda: not git_processes(toolbox.daemon))


def test_others_are_served_while_git_works(toolbox: Toolbox, server: GitServer) -> None:
    clients = [toolbox.daemon.client() for _ in range(8)]
    answers: list[int] = []

    def clone(number: int) -> None:
        body = {"path": f"clone-{number}", "url": f"{server.url}/upstream.git", **CREDENTIALS}
        answers.append(clients[number].post("/git/clone", body).status)

    threads = [threading.Thread(target=clone, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert toolbox.daemon.get("/version").status == 200
    for thread in threads:
        thread.join()
    assert answers == [200] * 8


def test_a_repository_of_another_user_is_explained(toolbox: Toolbox, repo: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a repository to another user")
    for path in (repo, repo / ".git"):
        shutil.chown(path, 12345)
    answer = toolbox.get("status")
    assert refused(answer) == (403, "FORBIDDEN")
    assert "safe.directory" in answer.json["message"]
    toolbox.done("config", None, key="safe.directory", value=str(repo))
    assert toolbox.status()["currentBranch"] == "main"


def test_a_client_that_gives_up_in_silence_gets_bytes_and_no_false_success(toolbox: Toolbox, server: GitServer) -> None:
    body = b'{"path": "r", "url": "%s/silent/x"}' % server.url.encode()
    java = {**HEADERS, "X-Daytona-Source": "sdk-java"}
    connection = DoorConnection(toolbox.daemon.door)
    connection.request("POST", "/git/clone", body, java)
    response = connection.getresponse()
    assert response.status == 200
    assert response.read(1) == b" "
    server.released.set()
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        response.read()
    connection.close()


@pytest.fixture
async def own_git(tmp_path: Path) -> AsyncIterator[Git]:
    """The runner of git in this process."""
    children = Children()
    children.start()
    variables = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    made = Git(Environment(str(tmp_path), str(tmp_path), (1024, 1024), variables), children)
    yield made
    made.close()
    children.stop()


async def test_a_deadline_kills_git_and_what_it_started(own_git: Git, tmp_path: Path) -> None:
    sleeper, pid = ("-c", "alias.wait=!echo $$ >pid; sleep 300 & wait", "wait"), tmp_path / "pid"
    for seconds in (3, 30):
        with pytest.raises(TookTooLong, match="was killed after"):
            await own_git.run(Command(sleeper, str(tmp_path), seconds=seconds))
        if pid.exists() and pid.read_text():  # else it had not begun by then
            break
    shell = int(pid.read_text())
    await asyncio.get_running_loop().run_in_executor(None, eventually, lambda: not is_alive(shell))


async def test_an_answer_that_is_not_streamed_is_bounded(own_git: Git, tmp_path: Path) -> None:
    with pytest.raises(GitFailed, match="more than"):
        await own_git.run(Command(("-c", "alias.much=!cat /dev/zero", "much"), str(tmp_path)))


async def test_what_git_says_without_end_is_kept_at_its_end(own_git: Git, tmp_path: Path) -> None:
    noisy = "alias.noisy=!head -c 3000000 /dev/zero | tr '\\0' x >&2; echo last >&2; exit 3"
    finished = await own_git.run(Command(("-c", noisy, "noisy"), str(tmp_path)))
    assert finished.exit_code == 3
    assert finished.stderr.endswith("xlast\n")
    assert len(finished.stderr) <= 128 << 10
