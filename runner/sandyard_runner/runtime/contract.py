"""The contract between the runner and whatever holds sandboxes.

Its conformance suite is `tests/conformance/test_runtime.py`.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from pathlib import Path
from typing import Protocol, runtime_checkable

import msgspec

from sandyard_api.jobs.wire import RegistryLogin, Resources, SandboxSpec
from sandyard_runner.wire import Capability

ProgressReport = Callable[[str], None]
"""Called with one line of text per step of a pull or build."""


class PresentState(StrEnum):
    """What a runtime can see of a sandbox."""

    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"


class Present(msgspec.Struct, frozen=True):
    """One sandbox that exists in the runtime, whatever the database says."""

    sandbox_id: str
    state: PresentState
    exit_code: int | None = None
    """Of the sandbox's first process, when it is not running and that is known."""
    reason: str = ""
    """Why it is not running, in words for the user, such as `killed: out of memory`."""


class RuntimeEvent(msgspec.Struct, frozen=True):
    """Something that happened to a sandbox without our doing."""

    sandbox_id: str
    gone: bool
    """The sandbox was removed, files and all; otherwise it only stopped."""
    reason: str
    is_note: bool = False
    """Nothing happened to it: only something to be said of it, such as that it is over a limit that is watched."""


class ImageFacts(msgspec.Struct, frozen=True):
    """What a runtime knows of an image that it has."""

    size_bytes: int | None = None
    entrypoint: Sequence[str] = ()
    """ENTRYPOINT and CMD as one command line."""


class Build(msgspec.Struct, frozen=True):
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
        """The images of this installation's builds and snapshots that nobody asked for just now."""

    async def remove_build(self, image: str) -> None:
        """Remove one of them; one that is in use, or not there, is left alone."""

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


@runtime_checkable
class CanCommit(Protocol):
    """Keeps a sandbox's files as an image that `Runtime.create` takes. Processes, memory and mounts are not in it.

    `image` is a reference in the form `name:tag`, chosen by the caller. All raise `RuntimeFailure`.
    """

    async def commit(self, sandbox_id: str, image: str) -> None:
        """Make `image` from the files of a sandbox, whatever its state; one that runs is frozen for that moment.

        An image of that name is replaced once the new one is whole. Cancelled, it leaves no image of its own behind.
        Raises `NotPresent`, `Unsupported`.
        """

    async def has_image(self, image: str) -> bool:
        """Whether an image of that name is on this machine."""

    async def remove_image(self, image: str) -> None:
        """Remove an image that `commit` made. One that is not there is success; sandboxes made from it keep on."""


@runtime_checkable
class CanMount(Protocol):
    """Keeps the folders of volumes and mounts them as `SandboxSpec.mounts` says; they are in no image of `CanCommit`.

    What a mount names is made when a sandbox is created, and again at each start where it is gone. A subpath that user
    code made a link of leads nowhere: the start is refused.
    """

    async def volumes(self) -> Sequence[str]:
        """Ids of the volumes that have a folder here."""

    async def remove_volume(self, volume_id: str) -> None:
        """Remove its folder with all that is in it. One that is not there is success. Raises `RuntimeFailure`."""


@runtime_checkable
class CanPause(Protocol):
    """Holds a running sandbox still, and lets it run on. Both raise `RuntimeFailure` and may be repeated."""

    async def pause(self, sandbox_id: str) -> None:
        """Let none of its processes run; memory, files and connections stay. Raises `NotPresent`, `Unsupported`."""

    async def resume(self, sandbox_id: str) -> None:
        """Let them run on from where they were. Raises `NotPresent`, also where it does not run any more."""


@runtime_checkable
class CanResize(Protocol):
    """Gives a sandbox other limits."""

    async def resize(self, sandbox_id: str, resources: Resources) -> None:
        """Hold these limits from now on, running or not. May be repeated.

        Raises `NotPresent`, `Unsupported` for a limit this runtime does not hold, `RuntimeFailure` for one that cannot
        be had now, such as less memory than is in use; the limits are as they were then.
        """


@runtime_checkable
class CanRestrict(Protocol):
    """Holds rules for the way out of sandboxes (`sandyard_runner.egress`)."""

    async def hold_network(self, spec: SandboxSpec) -> Mapping[str, str]:
        """Hold the spec's rules and secrets for a sandbox that runs, from now on; the same again is quick.

        Gives the variables by which its clients find our proxy; none where it needs none. `Runtime.start` holds the
        rules before it returns. Raises `NotPresent`, `Unsupported`, `RuntimeFailure`; the rules before hold then.
        """
