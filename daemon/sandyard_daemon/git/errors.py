"""What can go wrong with a repository, as clients are told.

*Source:* contract/toolbox-daemon.md 2.3 and 13.
"""

from sandyard_daemon.errors import Conflict, DaemonError, Internal, NotFound, Unauthorized


class GitMissing(Internal):
    """The sandbox's image has no git program, or one that is too old."""


class GitFailed(Internal):
    """Git failed in a way that has no class of its own; the message is git's."""


class AuthenticationFailed(Unauthorized):
    """The remote wants other credentials than it was given."""

    code = "GIT_AUTH_FAILED"


class AccessForbidden(DaemonError):
    """The credentials are known and not enough, or the file system says no."""

    status, code = 403, "FORBIDDEN"


class RepositoryNotFound(NotFound):
    """No repository there, local or remote."""

    code = "GIT_REPO_NOT_FOUND"


class BranchNotFound(NotFound):
    """No such branch, tag or commit."""

    code = "GIT_BRANCH_NOT_FOUND"


class BranchExists(Conflict):
    """A branch of this name is there already."""

    code = "GIT_BRANCH_EXISTS"


class PushRejected(Conflict):
    """The remote's branch has commits that are not here."""

    code = "GIT_PUSH_REJECTED"


class DirtyWorktree(Conflict):
    """Changes in the working tree are in the way."""

    code = "GIT_DIRTY_WORKTREE"


class MergeConflict(Conflict):
    """Two histories that do not fit without a merge, or a merge that is not resolved."""

    code = "GIT_MERGE_CONFLICT"


class RemoteRejected(DaemonError):
    """The remote took the commits and refused the change: a hook, a protected branch."""

    status, code = 422, "GIT_REMOTE_REJECTED"


class TransportFailed(DaemonError):
    """The remote cannot be reached, or the connection to it broke."""

    status, code = 502, "GIT_TRANSPORT_FAILED"


class TookTooLong(DaemonError):
    """Git ran longer than it may; it was killed."""

    status, code = 408, "REQUEST_TIMEOUT"
