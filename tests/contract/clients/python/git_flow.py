"""One pass through git by the Python SDK, whatever its release: SANDBOX URL FOLDER; prints what it saw as JSON."""

import json
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from daytona import Daytona, DaytonaError

USER: dict[str, Any] = {"username": "someone", "password": "secret"}


def refused(call: Callable[[], object]) -> list[str]:
    """The name of the error's class and its text."""
    try:
        call()
    except DaytonaError as error:
        return [type(error).__name__, str(error)]
    return ["nothing was raised", ""]


def shown(status: Any) -> list[Any]:
    """Branch, ahead, and the files with what happened to each."""
    files = [[each.name, str(getattr(each.worktree, "value", each.worktree))] for each in status.file_status]
    return [status.current_branch, status.ahead, sorted(files)]


def main() -> None:
    """Clone, branch, commit, push, pull."""
    sandbox, url, repo, second = Daytona().get(sys.argv[1]), sys.argv[2], sys.argv[3] + "/one", sys.argv[3] + "/two"
    git = sandbox.git
    saw: dict[str, Any] = {"version": version("daytona")}
    saw["no password"] = refused(lambda: git.clone(url, repo))
    git.clone(url, repo, **USER)
    git.clone(url, second, branch="main", **USER)
    saw["cloned"] = shown(git.status(repo))
    branch = f"feature-{saw['version']}"
    git.create_branch(repo, branch)
    git.checkout_branch(repo, "main")
    saw["branches"] = git.branches(repo).branches == [branch, "main"]
    git.delete_branch(repo, branch)
    sandbox.process.exec(f"echo it >{repo}/'new file.txt'")
    saw["changed"] = shown(git.status(repo))
    git.add(repo, ["new file.txt"])
    sha = git.commit(repo, "a message", "Ann", "ann@example.com").sha
    saw["committed"] = shown(git.status(repo))
    git.push(repo, **USER)
    git.pull(second, **USER)
    head = sandbox.process.exec(f"git -C {second} log -1 --format='%H %an %ce %s'").result.strip()
    saw["pulled"] = head == f"{sha} Ann ann@example.com a message"
    saw["no branch"] = refused(lambda: git.checkout_branch(repo, "nowhere"))
    saw["no repository"] = refused(lambda: git.status(repo + "-none"))
    saw["branch exists"] = refused(lambda: git.create_branch(repo, "main"))
    if hasattr(git, "init"):
        later(git, repo, url, saw)
    json.dump(saw, sys.stdout)


def later(git: Any, repo: str, url: str, saw: dict[str, Any]) -> None:
    """What came with the releases of 2026."""
    fresh = repo + "-fresh"
    git.init(fresh, initial_branch="trunk")
    git.remote_add(fresh, "up", url)
    saw["remote"] = [git.remote_get(fresh, "up") == url, git.remote_get(fresh, "none")]
    git.set_config("user.name", "Here", scope="local", path=fresh)
    git.configure_user("There", "there@example.com")
    saw["config"] = [git.get_config("user.name", scope="local", path=fresh), git.get_config("user.email")]
    saw["unset"] = git.get_config("no.such", scope="local", path=fresh)
    git.reset(repo, mode="soft", target="HEAD~1")
    git.restore(repo, ["new file.txt"], staged=True)
    saw["unstaged"] = shown(git.status(repo))
    git.dangerously_authenticate("someone", "secret", host=url.split("/")[2], protocol="http")
    git.pull(fresh, remote="up", branch="main")
    saw["stored"] = git.status(fresh).current_branch


if __name__ == "__main__":
    main()
