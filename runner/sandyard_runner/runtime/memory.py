"""A runtime that keeps states and nothing else: for tests of everything above it, with failures on request."""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from sandyard_api.jobs.wire import SNAPSHOT_REPOSITORY, RegistryLogin, Resources, SandboxSpec
from sandyard_runner.errors import NotPresent, RuntimeFailure
from sandyard_runner.runtime.contract import (
    Build,
    ImageFacts,
    Present,
    PresentState,
    ProgressReport,
    RuntimeEvent,
)
from sandyard_runner.wire import Capability, Enforcement


class _Sandbox(msgspec.Struct):
    spec: SandboxSpec
    state: PresentState = PresentState.STOPPED
    exit_code: int | None = None
    reason: str = ""
    resources: Resources | None = None
    """What `resize` was told last."""


class MemoryRuntime:
    """Sandboxes without processes. `doors_dir` is where `door` points to; whoever wants a daemon there starts it."""

    name = "memory"

    def __init__(self, doors_dir: Path = Path("/nonexistent")) -> None:
        self._doors_dir = doors_dir
        self._sandboxes: dict[str, _Sandbox] = {}
        self.images: set[str] = set()
        """What `commit` made and `remove_image` did not take away."""
        self._failures: defaultdict[str, deque[RuntimeFailure]] = defaultdict(deque)
        self._listeners: set[asyncio.Queue[RuntimeEvent]] = set()
        self.folders: set[str] = set()
        """Volumes that were mounted and not removed."""
        self.builds: set[str] = set()
        """Names of the images that were built."""
        self.calls: list[tuple[str, str]] = []
        """`(method, sandbox id or image)` of every call, in order."""

    def fail_next(self, method: str, failure: RuntimeFailure) -> None:
        """Let the next call of `method` raise `failure`; several are raised one call each."""
        self._failures[method].append(failure)

    def forgive(self) -> None:
        """Let nothing fail any more."""
        self._failures.clear()

    def kill(self, sandbox_id: str, *, reason: str = "killed: out of memory", exit_code: int = 137) -> None:
        """End a sandbox without anybody having asked for it."""
        sandbox = self._sandboxes[sandbox_id]
        sandbox.state, sandbox.exit_code, sandbox.reason = PresentState.STOPPED, exit_code, reason
        self._tell(RuntimeEvent(sandbox_id, gone=False, reason=reason))

    def vanish(self, sandbox_id: str, *, reason: str = "removed by somebody else") -> None:
        """Remove a sandbox behind the runner's back."""
        del self._sandboxes[sandbox_id]
        self._tell(RuntimeEvent(sandbox_id, gone=True, reason=reason))

    def capabilities(self) -> Sequence[Capability]:
        names = ("cpu", "memory", "processes", "disk", "network_isolation", "filesystem_isolation")
        return [Capability(name, Enforcement.IGNORED, "nothing runs in the memory runtime") for name in names]

    def door(self, sandbox_id: str) -> Path:
        return self._doors_dir / sandbox_id / "door.sock"

    async def ensure_image(
        self,
        image: str | None,
        report: ProgressReport,
        *,
        build: Build | None = None,
        logins: Sequence[RegistryLogin] = (),
    ) -> ImageFacts:
        self._called("ensure_image", image or "")
        if image is not None and build is not None and image not in self.builds:
            for line in build.dockerfile.splitlines():
                report(line)
            self.builds.add(image)
        elif image is not None:
            report(f"image {image} is there")
        return ImageFacts(1 << 30, ("sleep", "infinity"))

    async def built_images(self) -> Sequence[str]:
        return sorted([*self.builds, *(image for image in self.images if image.startswith(SNAPSHOT_REPOSITORY))])

    async def remove_build(self, image: str) -> None:
        self._called("remove_build", image)
        self.builds.discard(image)
        self.images.discard(image)

    async def create(self, spec: SandboxSpec) -> None:
        self._called("create", spec.sandbox_id)
        self._sandboxes.setdefault(spec.sandbox_id, _Sandbox(spec))
        self.folders |= {mount.volume_id for mount in spec.mounts if mount.volume_id is not None}

    async def start(self, spec: SandboxSpec) -> None:
        self._called("start", spec.sandbox_id)
        sandbox = self._find(spec.sandbox_id)
        sandbox.spec = spec
        sandbox.state, sandbox.exit_code, sandbox.reason = PresentState.RUNNING, None, ""

    async def stop(self, sandbox_id: str, *, force: bool = False, grace_seconds: float = 5.0) -> None:
        self._called("stop", sandbox_id)
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is not None and sandbox.state is not PresentState.STOPPED:
            sandbox.state, sandbox.exit_code = PresentState.STOPPED, 137 if force else 0

    async def remove(self, sandbox_id: str) -> None:
        self._called("remove", sandbox_id)
        self._sandboxes.pop(sandbox_id, None)

    async def pause(self, sandbox_id: str) -> None:
        self._called("pause", sandbox_id)
        self._find(sandbox_id, running=True).state = PresentState.PAUSED

    async def resume(self, sandbox_id: str) -> None:
        self._called("resume", sandbox_id)
        self._find(sandbox_id, running=True).state = PresentState.RUNNING

    async def resize(self, sandbox_id: str, resources: Resources) -> None:
        self._called("resize", sandbox_id)
        self._find(sandbox_id).resources = resources

    async def commit(self, sandbox_id: str, image: str) -> None:
        self._called("commit", sandbox_id)
        self._find(sandbox_id)
        self.images.add(image)

    async def has_image(self, image: str) -> bool:
        self._called("has_image", image)
        return image in self.images

    async def remove_image(self, image: str) -> None:
        self._called("remove_image", image)
        self.images.discard(image)

    async def volumes(self) -> Sequence[str]:
        return sorted(self.folders)

    async def remove_volume(self, volume_id: str) -> None:
        self._called("remove_volume", volume_id)
        self.folders.discard(volume_id)

    async def present(self) -> Sequence[Present]:
        return [Present(key, item.state, item.exit_code, item.reason) for key, item in self._sandboxes.items()]

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[RuntimeEvent]]:
        queue: asyncio.Queue[RuntimeEvent] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            yield _drain(queue)
        finally:
            self._listeners.discard(queue)

    async def close(self) -> None:
        self._listeners.clear()

    def _find(self, sandbox_id: str, *, running: bool = False) -> _Sandbox:
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None or (running and sandbox.state is PresentState.STOPPED):
            raise NotPresent(sandbox_id)
        return sandbox

    def _called(self, method: str, subject: str) -> None:
        self.calls.append((method, subject))
        if self._failures[method]:
            raise self._failures[method].popleft()

    def _tell(self, event: RuntimeEvent) -> None:
        for listener in self._listeners:
            listener.put_nowait(event)


async def _drain(queue: asyncio.Queue[RuntimeEvent]) -> AsyncIterator[RuntimeEvent]:
    while True:
        yield await queue.get()
