"""Operations that need no remote: status, branches, history, and what changes the index and the working tree."""

from sandyard_daemon.environment import Environment
from sandyard_daemon.errors import BadRequest, Conflict
from sandyard_daemon.git.errors import BranchExists, BranchNotFound
from sandyard_daemon.git.failures import Rule, failure
from sandyard_daemon.git.fields import directory, files, line, query_text, ref_name, revision, text, text_or_none
from sandyard_daemon.git.output import HISTORY_FORMAT, BranchListing, HistoryListing, StatusListing, streamed
from sandyard_daemon.git.process import Command, Git
from sandyard_daemon.git.repository import FROM_STDIN, LITERAL, Repository, expect
from sandyard_daemon.http.messages import Answer, Handler, Request, Response, json_response
from sandyard_daemon.routes.fields import flag

RESET_MODES = ("soft", "mixed", "hard", "merge", "keep")

_REFUSED_BY_HOOK: tuple[Rule, ...] = (("", Conflict),)
_UNKNOWN_BRANCH: tuple[Rule, ...] = (("pathspec '|invalid reference", BranchNotFound),)


class LocalRoutes:
    """Everything about a repository but its remotes and settings."""

    def __init__(self, git: Git, environment: Environment) -> None:
        self._git = git
        self._environment = environment

    def handlers(self) -> dict[str, Handler]:
        """By operation id."""
        return {
            "GetStatus": self.status,
            "ListBranches": self.branches,
            "CreateBranch": self.create_branch,
            "DeleteBranch": self.delete_branch,
            "CheckoutBranch": self.checkout,
            "GetCommitHistory": self.history,
            "AddFiles": self.add,
            "CommitChanges": self.commit,
            "InitRepository": self.init,
            "ResetChanges": self.reset,
            "RestoreFiles": self.restore,
        }

    async def status(self, request: Request) -> Answer:
        """Branch and changed files; untracked ones singly, as the original lists them."""
        arguments = ("--no-optional-locks", "status", "--porcelain=v2", "-z", "--branch", "--ahead-behind")
        command = Command((*arguments, "--untracked-files=all"), self._directory_of_query(request))
        return await streamed(self._git, command, StatusListing(is_brief=request.caller.decodes_strictly))

    async def branches(self, request: Request) -> Answer:
        """Local branches by name, and the one that is checked out, `""` where none is."""
        repository = Repository(self._git, self._directory_of_query(request))
        current = await repository.current_branch() or ""
        command = Command(("for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads"), repository.directory)
        return await streamed(self._git, command, BranchListing(None if request.caller.decodes_strictly else current))

    async def history(self, request: Request) -> Answer:
        """Every commit that HEAD reaches, newest first."""
        arguments = ("log", "-z", "-s", "--no-show-signature", "--encoding=UTF-8", f"--format={HISTORY_FORMAT}")
        command = Command(arguments, self._directory_of_query(request))
        try:
            return await streamed(self._git, command, HistoryListing())
        except BranchNotFound:  # HEAD names a branch that has no commit yet
            return json_response(200, [])

    async def create_branch(self, request: Request) -> Answer:
        """201: made at HEAD and checked out, what is staged kept."""
        repository, name = await self._named_branch(request)
        if await repository.has_branch(name):
            raise BranchExists(f"a branch named {name!r} already exists")
        await repository.require_clean()
        await repository.run("checkout", "-q", "-b", name, "--")
        return Response(201)

    async def delete_branch(self, request: Request) -> Answer:
        """204, also of a branch that is not merged; 409 for the one that is checked out."""
        repository, name = await self._named_branch(request)
        await repository.run("branch", "-D", "--", name)
        return Response(204)

    async def checkout(self, request: Request) -> Answer:
        """A local branch, else one that exactly one remote has, else a commit by whatever names it."""
        body = await request.json_object()
        repository = Repository(self._git, directory(body, self._environment))
        name = revision("branch", line(body, "branch"))
        known = await repository.attempt("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
        if known.exit_code == 0:
            await repository.require_clean()
        elif known.stderr:
            raise failure(known, _UNKNOWN_BRANCH)
        await repository.run("checkout", "-q", name, "--", rules=_UNKNOWN_BRANCH)
        return Response(200)

    async def add(self, request: Request) -> Answer:
        """Stage files and deletions; a name that is nothing stages nothing at all."""
        body = await request.json_object()
        repository, names = Repository(self._git, directory(body, self._environment)), files(body)
        await repository.run(*LITERAL, "-c", "advice.addEmptyPathspec=false", "add", *FROM_STDIN, paths=names)
        return Response(200)

    async def commit(self, request: Request) -> Answer:
        """What is staged, by the given author, who is the committer too; hooks run."""
        body = await request.json_object()
        message, author, email = text(body, "message"), line(body, "author"), line(body, "email")
        repository = Repository(self._git, directory(body, self._environment))
        allow_empty = flag(body, "allow_empty")
        people = {f"GIT_{role}_{key}": value for role in _ROLES for key, value in (("NAME", author), ("EMAIL", email))}
        arguments = ["-c", "i18n.commitEncoding=UTF-8", "commit", "-q", "-F", "-", "--cleanup=whitespace"]
        arguments += ["--allow-empty"] if allow_empty else []
        finished = await self._git.run(
            Command(tuple(arguments), repository.directory, message.encode(), variables=people)
        )
        if finished.exit_code == 1 and not await repository.differs("--cached"):
            raise Conflict("nothing is staged: there is nothing to commit")
        expect(finished, _REFUSED_BY_HOOK if finished.exit_code == 1 else ())
        sha = await repository.run("rev-parse", "--verify", "HEAD")
        return json_response(200, {"hash": sha.decode().strip()})

    async def init(self, request: Request) -> Answer:
        """201, also where there is a repository already: git leaves that one as it is."""
        body = await request.json_object()
        place, branch = directory(body, self._environment), text_or_none(body, "initial_branch")
        arguments = ["init", "-q"] + (["--bare"] if flag(body, "bare") else [])
        arguments += [f"--initial-branch={ref_name('initial_branch', branch)}"] if branch else []
        await Repository(self._git, "/").run(*arguments, "--", place)
        return Response(201)

    async def reset(self, request: Request) -> Answer:
        """Move HEAD, index and working tree as the mode says; with files, only their place in the index."""
        body = await request.json_object()
        repository = Repository(self._git, directory(body, self._environment))
        mode, target = text_or_none(body, "mode") or "mixed", text_or_none(body, "target")
        names = files(body) if body.get("files") is not None else []
        if mode not in RESET_MODES:
            raise BadRequest(f"mode must be one of {', '.join(RESET_MODES)}")
        if names and mode != "mixed":
            raise BadRequest(f"a {mode} reset takes no files: it moves the whole repository")
        arguments = ["reset", "-q"] + ([] if names else [f"--{mode}"]) + (list(FROM_STDIN) if names else [])
        arguments += [await _commit(repository, "target", target)] if target else []
        await repository.run(*LITERAL, *arguments, *([] if names else ["--"]), paths=names)
        return Response(200)

    async def restore(self, request: Request) -> Answer:
        """Take files from the index or from `source`, to the working tree unless only the index is asked for."""
        body = await request.json_object()
        repository, names = Repository(self._git, directory(body, self._environment)), files(body)
        staged, worktree = flag(body, "staged"), flag(body, "worktree")
        source = text_or_none(body, "source")
        if not names:
            raise BadRequest("files must name at least one path")
        arguments = ["restore", "-q", *FROM_STDIN] + (["--staged"] if staged else [])
        arguments += ["--worktree"] if worktree or not staged else []
        arguments += [f"--source={await _commit(repository, 'source', source)}"] if source else []
        finished = await repository.attempt(*LITERAL, *arguments, paths=names)
        if staged and not worktree and not source and "could not resolve" in finished.stderr:
            # Before the first commit there is nothing to restore from: unstaging is what `reset` does then.
            finished = await repository.attempt(*LITERAL, "reset", "-q", *FROM_STDIN, paths=names)
        expect(finished)
        return Response(200)

    async def _named_branch(self, request: Request) -> tuple[Repository, str]:
        body = await request.json_object()
        place, name = directory(body, self._environment), text(body, "name")
        return Repository(self._git, place), ref_name("name", name)

    def _directory_of_query(self, request: Request) -> str:
        return self._environment.resolve(query_text(request, "path"))


_ROLES = ("AUTHOR", "COMMITTER")


async def _commit(repository: Repository, name: str, value: str) -> str:
    """The hash that a revision stands for. Raises `BadRequest`, `BranchNotFound`."""
    asked = f"{revision(name, value)}^{{commit}}"
    finished = await repository.attempt("rev-parse", "--verify", asked)
    return expect(finished).decode().strip()
