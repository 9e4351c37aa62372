"""Operations that reach other repositories: clone, pull, push, and the list of remotes."""

import re
from collections.abc import Awaitable, Callable

from sandyard_daemon.environment import Environment
from sandyard_daemon.errors import NotFound
from sandyard_daemon.git.access import Access, Credentials
from sandyard_daemon.git.configuration import set_privately
from sandyard_daemon.git.errors import BranchNotFound, MergeConflict, PushRejected, RemoteRejected
from sandyard_daemon.git.failures import Rule
from sandyard_daemon.git.fields import (
    credentials,
    depth,
    directory,
    line,
    query_text,
    ref_name,
    revision,
    text_or_none,
)
from sandyard_daemon.git.process import Git
from sandyard_daemon.git.repository import Repository, expect
from sandyard_daemon.http.messages import Answer, Handler, Request, Response, json_response
from sandyard_daemon.routes.early import answer_in_time
from sandyard_daemon.routes.fields import flag

_FULL_HASH = re.compile(r"[0-9a-fA-F]{40}|[0-9a-fA-F]{64}")
_PUSH_RULES: tuple[Rule, ...] = (
    (r"\[remote rejected\]", RemoteRejected),
    (r"\[rejected\]|failed to push some refs", PushRejected),
)
_NO_COMMIT: tuple[Rule, ...] = (("not our ref|unadvertised object|couldn't find remote ref", BranchNotFound),)
_DIVERGED: tuple[Rule, ...] = (("not possible to fast-forward|diverg", MergeConflict),)


class RemoteRoutes:
    """Clone, pull, push and remotes."""

    def __init__(self, git: Git, environment: Environment) -> None:
        self._git = git
        self._environment = environment

    def handlers(self) -> dict[str, Handler]:
        """By operation id."""
        return {
            "CloneRepository": _in_time(self.clone),
            "PullChanges": _in_time(self.pull),
            "PushChanges": _in_time(self.push),
            "ListRemotes": self.remotes,
            "AddRemote": self.add_remote,
        }

    async def clone(self, request: Request) -> Response:
        """One branch of a repository, its history whole unless `depth` says otherwise."""
        body = await request.json_object()
        url, place = line(body, "url"), directory(body, self._environment)
        branch, commit = text_or_none(body, "branch"), revision("commit_id", text_or_none(body, "commit_id") or "")
        access = Access.to(url, credentials(body))
        settings = ["-c", "http.sslVerify=false"] if flag(body, "insecure_skip_tls") else []
        shallow = [f"--depth={count}"] if (count := depth(body)) else []
        arguments = [*settings, "clone", "-q", "--origin=origin", "--single-branch", *shallow]
        arguments += ["--no-local"] if shallow else []  # of a path, git would ignore the depth otherwise
        arguments += [f"--branch={ref_name('branch', branch)}"] if branch else []
        arguments += ["--no-checkout"] if commit else []
        around = Repository(self._git, self._environment.work_dir)
        await around.transfer(*arguments, "--", access.clean_url, place, access=access)
        repository = Repository(self._git, place)
        if _holds_password(url):
            await set_privately(repository, "remote.origin.url", url)
        # All branches for later fetches: of one alone, and of an empty repository, git would leave less behind.
        await repository.run("config", "--replace-all", "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*")
        if commit:
            await self._checkout(repository, commit, [*settings, "fetch", "-q", *shallow], access)
        return Response(200)

    async def _checkout(self, repository: Repository, commit: str, fetch: list[str], access: Access) -> None:
        """The commit, detached; one that a shallow or single-branch clone left out is asked for by its full hash."""
        asked = f"{commit}^{{commit}}"
        found = await repository.attempt("rev-parse", "--verify", "--quiet", asked)
        if found.exit_code != 0:
            if _FULL_HASH.fullmatch(commit) is None:
                raise BranchNotFound(f"no commit {commit!r} on the branch that was cloned to {repository.directory}")
            await repository.transfer(*fetch, "--", "origin", commit, access=access, rules=_NO_COMMIT)
        await repository.transfer("checkout", "-q", "--detach", commit, "--", access=access)

    async def pull(self, request: Request) -> Response:
        """Fetch a branch and move the current one forward; never a merge commit."""
        body = await request.json_object()
        repository, given = Repository(self._git, directory(body, self._environment)), credentials(body)
        remote, branch = await self._source(repository, text_or_none(body, "remote"), text_or_none(body, "branch"))
        access = await self._access(repository, remote, given)
        options = ("-q", "--ff-only", "--no-rebase", "--no-edit")
        await repository.transfer("pull", *options, "--", remote, branch, access=access, rules=_DIVERGED)
        return Response(200)

    async def _source(self, repository: Repository, remote: str | None, branch: str | None) -> tuple[str, str]:
        """What to pull: as asked, else the upstream of the current branch, else its name on `origin`."""
        current = await repository.current_branch() if branch is None or remote is None else None
        if branch is None:
            if current is None:
                raise BranchNotFound("HEAD is detached: say which branch to pull")
            if remote is None:
                remote = await _setting(repository, f"branch.{current}.remote")
            merged = await _setting(repository, f"branch.{current}.merge") if remote else None
            branch = (merged or current).removeprefix("refs/heads/")
        return ref_name("remote", remote or "origin") if remote != "." else ".", ref_name("branch", branch)

    async def push(self, request: Request) -> Response:
        """A branch to the one of the same name."""
        body = await request.json_object()
        repository, given = Repository(self._git, directory(body, self._environment)), credentials(body)
        options = ["-q"] + (["--set-upstream"] if flag(body, "set_upstream") else [])
        remote = ref_name("remote", text_or_none(body, "remote") or "origin")
        branch = text_or_none(body, "branch") or await repository.current_branch()
        if branch is None:
            raise BranchNotFound("HEAD is detached: say which branch to push")
        ref = f"refs/heads/{ref_name('branch', branch)}"
        access = await self._access(repository, remote, given, "--push")
        if not await repository.has_branch(branch):
            raise BranchNotFound(f"there is no branch {branch!r} with commits")
        await repository.transfer("push", *options, "--", remote, f"{ref}:{ref}", access=access, rules=_PUSH_RULES)
        return Response(200)

    async def remotes(self, request: Request) -> Answer:
        """Names and URLs as they are configured."""
        repository = Repository(self._git, self._environment.resolve(query_text(request, "path")))
        await repository.run("rev-parse", "--git-dir")
        found = await repository.attempt("config", "--null", "--get-regexp", r"^remote\..*\.url$")
        urls: dict[str, str] = {}
        for entry in found.stdout.decode("utf-8", "replace").split("\0")[:-1]:
            key, _, url = entry.partition("\n")
            urls.setdefault(key.removeprefix("remote.").removesuffix(".url"), url)
        return json_response(200, {"remotes": [{"name": name, "url": url} for name, url in urls.items()]})

    async def add_remote(self, request: Request) -> Answer:
        """201; `overwrite` gives a known one another URL, `fetch` asks it for its branches at once."""
        body = await request.json_object()
        repository = Repository(self._git, directory(body, self._environment))
        name, url = ref_name("name", line(body, "name")), line(body, "url")
        overwrite, fetch = flag(body, "overwrite"), flag(body, "fetch")
        access = Access.to(url, None)
        is_known = overwrite and await _setting(repository, f"remote.{name}.url") is not None
        await repository.run("remote", *(["set-url"] if is_known else ["add"]), "--", name, access.clean_url)
        if _holds_password(url):
            await set_privately(repository, f"remote.{name}.url", url)
        if fetch:
            await repository.transfer("fetch", "-q", "--", name, access=access)
        return Response(201)

    async def _access(self, repository: Repository, remote: str, given: Credentials | None, *options: str) -> Access:
        """To the remote's URL as git will use it. Raises `NotFound`, `BadRequest`."""
        if remote == ".":
            return Access.to(remote, None)
        missing: tuple[Rule, ...] = (("no such remote", NotFound),)
        urls = await repository.run("remote", "get-url", *options, "--", remote, rules=missing)
        return Access.to(urls.decode("utf-8", "surrogateescape").partition("\n")[0], given)


def _in_time(work: Callable[[Request], Awaitable[Response]]) -> Handler:
    """A handler whose answer may take long: those who give up in silence get white space meanwhile.

    Where it fails after that, the connection is cut, so that nobody takes it for done.
    """

    async def handle(request: Request) -> Answer:
        if request.caller.needs_early_bytes:
            return await answer_in_time(work(request), _cut)
        return await work(request)

    return handle


def _cut(error: BaseException) -> bytes:
    raise error


def _holds_password(url: str) -> bool:
    return Access.to(url, None).credentials is not None


async def _setting(repository: Repository, key: str) -> str | None:
    """A value of the repository's configuration; `None` where it is not set."""
    finished = await repository.attempt("config", "--null", "--get", "--", key)
    return expect(finished).decode("utf-8", "surrogateescape")[:-1] if finished.exit_code != 1 else None
