"""Answers about sandboxes, in the form that the caller's release can read."""

from collections.abc import Mapping
from typing import Any

import msgspec

from sandyard_api.sandboxes.models import Sandbox
from sandyard_api.sandboxes.schemas import SandboxDto, SandboxListItem, full, list_item
from sandyard_daemon.wire.versions import Caller, Release

Full = SandboxDto | dict[str, Any]

FIRST_CURSOR_RELEASE: Release = (0, 188, 0)
"""Releases before it know `GET /sandbox` as a bare array, or do not use it."""

SINCE: Mapping[str, Release] = {
    "toolboxProxyUrl": (0, 147, 0),
    "lastActivityAt": (0, 168, 0),
    "sandboxClass": (0, 183, 0),
    "linkedSandboxId": (0, 183, 0),
}
"""Keys that came to the full answer before 0.188, where the Go client still refused unknown ones, and when."""
ALWAYS = frozenset(
    (
        *("id", "organizationId", "name", "target", "snapshot", "user", "env", "labels", "public", "networkBlockAll"),
        *("cpu", "gpu", "memory", "disk", "state", "desiredState", "errorReason", "recoverable", "backupState"),
        *("autoStopInterval", "autoArchiveInterval", "autoDeleteInterval", "volumes", "buildInfo", "createdAt"),
        *("updatedAt", "daemonVersion", "runnerId"),
    )
)
"""Keys that every supported release knows."""


class Presenter:
    """Makes answers for one caller, with URLs that lead back the way it came."""

    def __init__(self, toolbox_url: str, caller: Caller) -> None:
        self._toolbox_url = toolbox_url
        self._keys = known_keys(caller.release) if caller.decodes_strictly and caller.release else None
        self.wants_bare_list = caller.release is not None and caller.release < FIRST_CURSOR_RELEASE
        """Whether `GET /sandbox` is an array to this caller."""

    def full(self, row: Sandbox) -> Full:
        """The whole sandbox."""
        answer = full(row, self._toolbox_url)
        if self._keys is None:
            return answer
        plain: dict[str, Any] = msgspec.to_builtins(answer)
        return {key: value for key, value in plain.items() if key in self._keys}

    def item(self, row: Sandbox) -> SandboxListItem:
        """The sandbox in a list by cursor."""
        return list_item(row, self._toolbox_url)


def known_keys(release: Release) -> frozenset[str]:
    """The keys of a sandbox that the generated models of that release have."""
    return ALWAYS | {key for key, since in SINCE.items() if release >= since}
