"""From git's exit status and what it wrote under `LC_ALL=C` to one of our errors."""

import re
from collections.abc import Iterable

from sandyard_daemon.errors import BadRequest, Conflict, DaemonError, NotFound
from sandyard_daemon.git.errors import (
    AccessForbidden,
    AuthenticationFailed,
    BranchExists,
    BranchNotFound,
    DirtyWorktree,
    GitFailed,
    GitMissing,
    MergeConflict,
    PushRejected,
    RepositoryNotFound,
    TransportFailed,
)
from sandyard_daemon.git.process import Finished

MESSAGE_CHARACTERS = 4096

Rule = tuple[str, type[DaemonError]]

# The first that is found wins, so what is more exact comes first.
_RULES: tuple[Rule, ...] = (
    (r"detected dubious ownership", AccessForbidden),
    (r"\.lock': File exists|could not lock config file .*: File exists|another git process", Conflict),
    (r"authentication failed|could not read (username|password)|permission denied \(", AuthenticationFailed),
    (r"returned error: 401|http basic: access denied", AuthenticationFailed),
    (r"returned error: 403|permission to .* denied", AccessForbidden),
    (r"(couldn't find|could not find|no such) remote ref|remote branch .* not found", BranchNotFound),
    (r"not a git repository|cannot change to |can only be used inside a git repo", RepositoryNotFound),
    (r"repository '.*' (not found|does not exist)|repository not found|returned error: 404", RepositoryNotFound),
    (r"does not appear to be a git repository", RepositoryNotFound),
    (r"no such remote", NotFound),
    (r"remote .* already exists|destination path .* already exists", Conflict),
    (r"a branch named .* already exists", BranchExists),
    (r"local changes .* would be overwritten|not uptodate|could not reset index", DirtyWorktree),
    (r"untracked working tree files would be", DirtyWorktree),
    (r"not possible to fast-forward|unmerged|resolve your current index|in the middle of a merge", MergeConflict),
    (r"have not concluded your merge|refusing to merge unrelated|fix conflicts", MergeConflict),
    (r"cannot delete branch .* (checked out|used by worktree)|already (checked out|used by worktree)", Conflict),
    (r"matched multiple", Conflict),
    (r"\[rejected\]|failed to push some refs", PushRejected),
    (r"branch '.*' not found|invalid reference|src refspec .* does not match|reference is not a tree", BranchNotFound),
    (r"could not resolve (?!host)|unknown revision|needed a single revision|failed to resolve '", BranchNotFound),
    (r"does not have any commits yet|not currently on a branch", BranchNotFound),
    (r"transport '.*' not allowed|strange (host|path)name|is not a git command|remote helper", BadRequest),
    (r"pathspec '|outside repository|ignored by one of|must be run in a work tree|in a bare repository", BadRequest),
    (r"not a valid (branch|remote) name|invalid (initial )?branch name|invalid path", BadRequest),
    (r"empty ident name|disallowed characters", BadRequest),
    (r"unable to access '|could not resolve host|could not read from remote|hung up|early eof", TransportFailed),
    (r"rpc failed|host key verification failed|connection (refused|timed out|reset)", TransportFailed),
    (r"bad line length|invalid server response|protocol error|fetch-pack|invalid index-pack", TransportFailed),
    (r"permission denied|read-only file system|operation not permitted", AccessForbidden),
    (r"cannot mkdir|could not create (leading directories|work tree)|not a directory|file name too long", BadRequest),
)
_COMPILED = tuple((re.compile(pattern, re.IGNORECASE | re.DOTALL), error) for pattern, error in _RULES)
_ADVICE = re.compile(r"^(hint:|usage:|\s{4,})")
_USAGE_STATUS = 129


def failure(finished: Finished, first: Iterable[Rule] = ()) -> DaemonError:
    """The error that says why git failed; `first` are rules of the one operation."""
    message = _message(finished.stderr) or f"git ended with status {finished.exit_code} and said nothing"
    if finished.exit_code == _USAGE_STATUS:
        return GitMissing(f"this sandbox's git does not know what is asked of it (2.25 or later is needed): {message}")
    own_words = "\n".join(line for line in finished.stderr.splitlines() if not line.startswith("remote:"))
    for pattern, error in first:
        if re.search(pattern, own_words, re.IGNORECASE | re.DOTALL):
            return error(message)
    for expression, error in _COMPILED:
        if expression.search(own_words):
            return error(_explained(error, message))
    return GitFailed(message)


def _explained(error: type[DaemonError], message: str) -> str:
    if error is AccessForbidden and "dubious ownership" in message:
        return message + "\nallow it by the git config key safe.directory at the global scope"
    return message


def _message(stderr: str) -> str:
    """What a person wants to read of it, the end rather than the beginning."""
    lines = [line.rstrip() for line in stderr.splitlines() if line.strip() and not _ADVICE.match(line)]
    return "\n".join(lines)[-MESSAGE_CHARACTERS:]
