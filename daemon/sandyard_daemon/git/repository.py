"""One repository in the sandbox, as the routes use it."""

from sandyard_daemon.git.access import NO_ACCESS, Access
from sandyard_daemon.git.errors import DirtyWorktree, MergeConflict
from sandyard_daemon.git.failures import Rule, failure
from sandyard_daemon.git.process import NETWORK_SECONDS, Command, Finished, Git

# Paths are names, not patterns, and come over stdin: any number of them, whatever characters they begin with.
LITERAL = ("--literal-pathspecs",)
FROM_STDIN = ("--pathspec-from-file=-", "--pathspec-file-nul")


class Repository:
    """Git commands in one directory."""

    def __init__(self, git: Git, directory: str) -> None:
        self._git = git
        self.directory = directory

    async def attempt(self, *arguments: str, paths: list[str] | None = None) -> Finished:
        """A command that may fail. `paths` go to its stdin."""
        stdin = "\0".join(paths or ()).encode()
        return await self._git.run(Command(arguments, self.directory, stdin))

    async def run(self, *arguments: str, paths: list[str] | None = None, rules: tuple[Rule, ...] = ()) -> bytes:
        """What a command prints. Raises what `failure` makes of its end, its `rules` first."""
        return expect(await self.attempt(*arguments, paths=paths), rules)

    async def transfer(self, *arguments: str, access: Access = NO_ACCESS, rules: tuple[Rule, ...] = ()) -> bytes:
        """The same for a command that talks to a remote."""
        return expect(
            await self._git.run(Command(arguments, self.directory, access=access, seconds=NETWORK_SECONDS)), rules
        )

    async def current_branch(self) -> str | None:
        """The name of the branch that is checked out, which need not have commits; `None` when HEAD is detached."""
        finished = await self.attempt("symbolic-ref", "--quiet", "--short", "HEAD")
        if finished.exit_code == 1:
            return None
        return expect(finished).decode("utf-8", "surrogateescape").rstrip("\n")

    async def has_branch(self, name: str) -> bool:
        """Whether there is a local branch of this name. Raises where there is no repository."""
        finished = await self.attempt("show-ref", "--verify", "--quiet", f"refs/heads/{name}")
        if finished.exit_code not in (0, 1):
            raise failure(finished)
        return finished.exit_code == 0

    async def differs(self, *options: str) -> bool:
        """Whether `git diff` with these options would show anything."""
        finished = await self.attempt("diff", "--quiet", "--no-ext-diff", "--no-textconv", *options)
        if finished.exit_code not in (0, 1):
            raise failure(finished)
        return finished.exit_code == 1

    async def require_clean(self) -> None:
        """Raises `DirtyWorktree`, `MergeConflict` where a tracked file differs from the index."""
        if not await self.differs("--ignore-submodules=dirty"):
            return
        if await self.differs("--diff-filter=U"):
            raise MergeConflict("a merge is not resolved yet: resolve it and add the files, or reset")
        raise DirtyWorktree("there are unstaged changes: add and commit them, or restore the files")


def expect(finished: Finished, rules: tuple[Rule, ...] = ()) -> bytes:
    """What it printed. Raises what `failure` makes of a status that is not 0."""
    if finished.exit_code != 0:
        raise failure(finished, rules)
    return finished.stdout
