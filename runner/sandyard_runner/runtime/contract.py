"""The contract between the runner and whatever holds sandboxes.

Its conformance suite is `tests/conformance/test_runtime.py`.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from sandyard_api.jobs.wire import RegistryLogin, SandboxSpec
from sandyard_runner.wire import Capability

ProgressReport = Callable[[str], None]
"""Called with one line of text per step of a pull or build."""


class PresentState(StrEnum):
    """What a runtime can see of a sandbox."""

    RUNNING = "running"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Present:
    """One sandbox that exists in the runtime, whatever the database says."""

    sandbox_id: str
    state: PresentState
    exit_code: int | None = None
    """Of the sandbox's first process, when it is not running and that is known."""
    reason: str = ""
    """Why it is not running, in words for the user, such as `killed: out of memory`."""


@dataclass(frozen=True, slots=True)
class RuntimeEvent:
    """Something that happened to a sandbox without our doing."""

    sandbox_id: str
    gone: bool
    """The sandbox was removed, files and all; otherwise it only stopped."""
    reason: str


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What a runtime knows of an image that it has."""

    size_bytes: int | None = None
    entrypoint: Sequence[str] = ()
    """ENTRYPOINT and CMD as one command line."""


@dataclass(frozen=True, slots=True)
class Build:
    """How to make an image that is not there."""

    dockerfile: str
    fetch_contexts: Callable[[Path], Awaitable[Sequence[Path]]]
    """Writes the build contexts, tar files, into that directory; called only when there is something to build."""


class Runtime(Protocol):
    """Holds sandboxes on one machine. Every method is idempotent by sandbox id: "already so" is success.

    All raise `RuntimeFailure` (see `sandyard_runner.errors`) with a message for the user; `Unsupported` for what this
    runtime cannot do.
    """

    name: str

    def capabilities(self) -> Sequence[Capability]:
        """What is enforced and what is not."""

    async def ensure_image(
        self,
        image: str | None,
        report: ProgressReport,
        *,
        build: Build | None = None,
        logins: Sequence[RegistryLogin] = (),
    ) -> ImageFacts:
        """Make the image usable: build it if needed where `build` says how, else pull it; `None` is the default one.

        Nothing of an attempt that failed stays.
        """

    async def built_images(self) -> Sequence[str]:
        """The images that this installation built here and that nobody asked for just now."""

    async def remove_image(self, image: str) -> None:
        """Remove an image that we built; one that is in use, or not there, is left alone."""

    async def create(self, spec: SandboxSpec) -> None:
        """Make the sandbox, stopped. Its files live until `remove`."""

    async def start(self, spec: SandboxSpec) -> None:
        """Start it with a fresh door and `spec.door_secret`; returns when the daemon answers. Raises `NotPresent`."""

    async def stop(self, sandbox_id: str, *, force: bool = False, grace_seconds: float = 5.0) -> None:
        """End its processes; its files stay. One that is stopped or not there is success."""

    async def remove(self, sandbox_id: str) -> None:
        """End it and remove everything of it."""

    async def present(self) -> Sequence[Present]:
        """Every sandbox of this installation that exists in the runtime."""

    def events(self) -> AbstractAsyncContextManager[AsyncIterator[RuntimeEvent]]:
        """Deaths and removals from the moment of entering; those that `stop` and `remove` cause are not told."""

    def door(self, sandbox_id: str) -> Path:
        """The daemon's unix socket as this process sees it. User code may have replaced it: open it with
        `sandyard_daemon.client.connect_door` only."""

    async def close(self) -> None:
        """Let go of the runtime; sandboxes stay as they are."""
