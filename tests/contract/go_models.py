"""Which keys the Go SDK's models knew, by release: before 0.188 they refuse any other (`DisallowUnknownFields`).

Read off the generated clients of the Python packages of the same releases, 0.136 to 0.187, which come from the same
description.
"""

Release = tuple[int, int]

SANDBOX = frozenset(
    "autoArchiveInterval autoDeleteInterval autoStopInterval backupCreatedAt backupState buildInfo cpu createdAt "
    "daemonVersion desiredState disk env errorReason gpu id labels memory name networkAllowList networkBlockAll "
    "organizationId public recoverable runnerId snapshot state target updatedAt user volumes".split()
)
SANDBOX_REQUIRED = frozenset(
    "id organizationId name user env labels public networkBlockAll target cpu gpu memory disk".split()
)
SANDBOX_SINCE: dict[str, Release] = {
    "toolboxProxyUrl": (0, 147),
    "lastActivityAt": (0, 168),
    "sandboxClass": (0, 183),
    "linkedSandboxId": (0, 183),
    "gpuType": (0, 184),
}
SANDBOX_UNTIL: dict[str, Release] = {"class": (0, 182)}
PAGINATED = frozenset({"items", "total", "page", "totalPages"})
PREVIEW = frozenset({"sandboxId", "url", "token"})
SESSION_EXEC = frozenset({"cmdId", "exitCode", "output", "stdout", "stderr"})
COMMAND = frozenset({"id", "command", "exitCode"})
SESSION = frozenset({"sessionId", "commands"})
EXECUTE = frozenset({"exitCode", "result"})
STRICT_BEFORE: Release = (0, 188)


def sandbox_keys(release: Release) -> frozenset[str]:
    """The keys of a sandbox that this release takes."""
    newer = {key for key, since in SANDBOX_SINCE.items() if release >= since}
    older = {key for key, until in SANDBOX_UNTIL.items() if release <= until}
    return SANDBOX | newer | older
