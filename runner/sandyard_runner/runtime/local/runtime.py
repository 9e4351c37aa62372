"""`Runtime` over namespaces or plain processes of this machine. See `options.Isolation` for the two forms."""

import asyncio
import contextlib
import os
import signal
import subprocess
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import structlog

from sandyard_api.jobs.wire import RegistryLogin, SandboxSpec
from sandyard_runner.daemon_bundle import ensure_bundle
from sandyard_runner.doors import door_path, is_well, prepare_door, wait_until_daemon_answers
from sandyard_runner.errors import DaemonUnreachable, NotPresent, RuntimeFailure, Unsupported
from sandyard_runner.runtime.contract import (
    Build,
    ImageFacts,
    Present,
    PresentState,
    ProgressReport,
    RuntimeEvent,
)
from sandyard_runner.runtime.local.builds.builder import LocalBuilds
from sandyard_runner.runtime.local.capabilities import capability_table
from sandyard_runner.runtime.local.cgroups import Group, Limits, find_limits
from sandyard_runner.runtime.local.egress import LocalEgress
from sandyard_runner.runtime.local.keeping import Keeping
from sandyard_runner.runtime.local.launch import Launched, launch_namespaces, launch_plain
from sandyard_runner.runtime.local.layers import Footing
from sandyard_runner.runtime.local.layout import Layout
from sandyard_runner.runtime.local.options import Isolation, LocalOptions
from sandyard_runner.runtime.local.probe import probe
from sandyard_runner.runtime.local.process import Run, Running, Watch, kill_marked
from sandyard_runner.runtime.local.tree import hidden_paths
from sandyard_runner.runtime.local.veth import Veth
from sandyard_runner.runtime.local.wayout import WayOut
from sandyard_runner.wire import Capability

KILL_TIMEOUT_SECONDS = 10.0
MEBIBYTE = 1 << 20
NO_BUILDS = (
    "the local runtime cannot build images: its sandboxes show this machine's own programs. Start Sandyard with"
    " --runtime docker for builds, or with --local-builds to have the steps run over this machine's system and FROM"
    " ignored, or use the default snapshot and install what is needed in the sandbox."
)
NO_IMAGES = (
    "the local runtime has no images, so {image} cannot be used: its sandboxes show this machine's own programs."
    " Start Sandyard with --runtime docker for images."
)
BUILDS_NEED_NAMESPACES = (
    "--local-builds cannot be had with --isolation none: without namespaces the steps of a build would change this"
    " machine itself. Leave one of the two out."
)

log = structlog.get_logger(__name__)


class LocalRuntime(Keeping, WayOut):
    """See `open_local_runtime`."""

    name = "local"

    def __init__(self, layout: Layout, limits: Limits) -> None:
        self._options = layout.options
        self._layout = layout
        self._limits = limits
        self._running: dict[str, Running] = {}
        self._reasons: dict[str, tuple[int | None, str]] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._egress = LocalEgress(self._options.data_dir, self._options.doors_dir, self._options.name_servers)
        self._veth = Veth(self._options.data_dir)
        self._builds = LocalBuilds(layout, limits, self._veth)
        self._listeners: set[asyncio.Queue[RuntimeEvent]] = set()

    def capabilities(self) -> Sequence[Capability]:
        return capability_table(self._options, self._limits.enforced, self._layout.uplink)

    def door(self, sandbox_id: str) -> Path:
        return door_path(self._options.doors_dir, sandbox_id)

    async def ensure_image(
        self,
        image: str | None,
        report: ProgressReport,
        *,
        build: Build | None = None,
        logins: Sequence[RegistryLogin] = (),
    ) -> ImageFacts:
        if image is not None and await self.has_image(image):
            self._builds.note_use(image)
            return await self._builds.facts(image)
        if build is not None and image is not None:
            if not self._options.local_builds:
                raise Unsupported(NO_BUILDS)
            return await self._builds.ensure(image, build, report)
        if image is not None and not self._layout.is_host(image):
            raise Unsupported(NO_IMAGES.format(image=image))
        if image is not None:
            report(f"{image} is IGNORED (--local-builds): sandboxes of it show this machine's own system.")
        return ImageFacts()

    async def built_images(self) -> Sequence[str]:
        return await self._builds.removable()

    async def remove_build(self, image: str) -> None:
        await self._builds.remove(image)

    async def prune(self) -> None:
        """Remove the layers of builds that neither an image nor a sandbox stands on."""
        await self._builds.prune()

    async def create(self, spec: SandboxSpec) -> None:
        await self.ensure_image(spec.image, lambda _: None)
        async with self._locks[spec.sandbox_id], self._builds.standing():
            await asyncio.to_thread(self._layout.account, spec)
            await asyncio.to_thread(self._layout.make, spec)

    async def start(self, spec: SandboxSpec) -> None:
        async with self._locks[spec.sandbox_id]:
            if not self._layout.exists(spec.sandbox_id):
                raise NotPresent(spec.sandbox_id)
            if spec.sandbox_id in self._running:
                if await is_well(self.door(spec.sandbox_id), spec.door_secret):
                    return
                await self._stop(spec.sandbox_id, force=True, grace_seconds=0)
            try:
                await self._start(spec)
            except RuntimeFailure:
                await self._stop(spec.sandbox_id, force=True, grace_seconds=0)
                raise
            except OSError as error:
                await self._stop(spec.sandbox_id, force=True, grace_seconds=0)
                raise RuntimeFailure(f"the sandbox could not be started: {error}") from error

    async def stop(self, sandbox_id: str, *, force: bool = False, grace_seconds: float = 5.0) -> None:
        async with self._locks[sandbox_id]:
            await self._stop(sandbox_id, force=force, grace_seconds=grace_seconds)

    async def remove(self, sandbox_id: str) -> None:
        async with self._locks[sandbox_id]:
            await self._stop(sandbox_id, force=True, grace_seconds=0)
            stood = await asyncio.to_thread(Footing.load, self._layout.base(sandbox_id))
            await asyncio.to_thread(self._layout.delete, sandbox_id)
            self._reasons.pop(sandbox_id, None)
        if stood is not None:
            await self._builds.prune()
        self._locks.pop(sandbox_id, None)

    async def volumes(self) -> Sequence[str]:
        return await asyncio.to_thread(self._layout.volumes.names)

    async def remove_volume(self, volume_id: str) -> None:
        if not await asyncio.to_thread(self._layout.volumes.remove, volume_id):
            raise RuntimeFailure("what sandboxes left in a volume cannot be removed")

    async def present(self) -> Sequence[Present]:
        found = []
        for base in sorted(self._layout.sandboxes.iterdir()):
            if self._layout.exists(base.name):
                exit_code, reason = self._reasons.get(base.name, (None, ""))
                if base.name in self._running:
                    is_paused = self._running[base.name].is_paused
                    found.append(Present(base.name, PresentState.PAUSED if is_paused else PresentState.RUNNING))
                else:
                    found.append(Present(base.name, PresentState.STOPPED, exit_code, reason))
        return found

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[RuntimeEvent]]:
        queue: asyncio.Queue[RuntimeEvent] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            yield _drain(queue)
        finally:
            self._listeners.discard(queue)

    async def close(self) -> None:
        reapers = []
        for running in self._running.values():
            running.watch.close()
            if running.reaper is not None:
                running.reaper.cancel()
                reapers.append(running.reaper)
        await asyncio.gather(*reapers, return_exceptions=True)
        await self._egress.close()
        if not self._running:
            await self._veth.sweep()
        self._running.clear()

    async def adopt(self) -> None:
        """Take over what an earlier process of ours left: sandboxes that serve on, and remains to clear away."""
        self._layout.sandboxes.mkdir(parents=True, exist_ok=True, mode=0o700)
        await asyncio.to_thread(self._look_around)
        for base in self._layout.sandboxes.iterdir():
            run = Run.load(self._layout.run_file(base.name))
            if not self._layout.exists(base.name):
                await asyncio.to_thread(self._layout.delete, base.name)
            elif run is not None and run.first.is_alive() and run.monitor.is_alive() and self._options.keep_running:
                group = Group(tuple(Path(path) for path in run.cgroup)) if run.cgroup else None
                is_paused = run.first.is_stopped() if group is None or not group.can_freeze else group.is_frozen
                self._supervise(base.name, Running(run, Watch(run.monitor, None), group, is_paused=is_paused))
                log.info("sandbox_adopted", sandbox_id=base.name)
            elif run is not None:
                await asyncio.to_thread(self._clear_away, base.name, run, None)
        await self._veth.sweep(self._running)
        await self._builds.prune()

    def _look_around(self) -> None:
        self._limits.sweep()
        self._layout.kept.sweep()
        self._layout.layers.sweep()
        if self._layout.is_isolated and os.geteuid() == 0:
            self._layout.hidden = hidden_paths()

    async def _start(self, spec: SandboxSpec) -> None:
        account = await asyncio.to_thread(self._layout.account, spec)
        other_user = account.uid if self._layout.is_isolated and os.geteuid() == 0 else None
        door = await asyncio.to_thread(
            prepare_door, self._options.doors_dir, spec.sandbox_id, spec.door_secret, uid=other_user, gid=account.gid
        )
        group = self._limits.make(
            spec.sandbox_id, memory_bytes=spec.memory_gib * 1024 * MEBIBYTE, cpus=max(1, spec.cpu)
        )
        run_id = uuid.uuid4().hex
        try:
            launched = await self._launch(spec, door, run_id, group)
        except BaseException:
            if group is not None:
                group.remove()
            raise
        directories = tuple(str(path) for path in group.directories) if group else ()
        run = Run(run_id, launched.monitor, launched.first, (), directories)
        running = Running(run, Watch(launched.monitor, launched.child), group)
        running.run.save(self._layout.run_file(spec.sandbox_id))
        self._supervise(spec.sandbox_id, running)
        self._egress.begin(spec.sandbox_id)
        await self._until_ready(spec, running)
        await self._hold(spec, running)

    async def _launch(self, spec: SandboxSpec, door: Path, run_id: str, group: Group | None) -> Launched:
        if self._layout.is_isolated:
            return await launch_namespaces(await asyncio.to_thread(self._layout.isolated, spec, door, group))
        return await launch_plain(self._layout.plain(spec, door, run_id, group))

    async def _until_ready(self, spec: SandboxSpec, running: Running) -> None:
        """Return when the daemon answers and the network is connected. Raises `RuntimeFailure`."""
        ready = asyncio.gather(
            wait_until_daemon_answers(
                self.door(spec.sandbox_id), spec.door_secret, timeout_seconds=self._options.start_timeout_seconds
            ),
            _nothing() if spec.network_block_all else self._connect(spec.sandbox_id, running),
        )
        ended = asyncio.create_task(running.watch.ended.wait())
        both: set[asyncio.Future[Any]] = {ready, ended}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                raise DaemonUnreachable(f"the sandbox ended while starting: {self._layout.last_words(spec.sandbox_id)}")
            await ready
        finally:
            ended.cancel()
            ready.cancel()
            await asyncio.gather(ready, ended, return_exceptions=True)

    def _supervise(self, sandbox_id: str, running: Running) -> None:
        running.gone = asyncio.Event()
        self._running[sandbox_id] = running
        self._reasons.pop(sandbox_id, None)
        running.reaper = asyncio.create_task(self._reap(sandbox_id, running), name=f"reap {sandbox_id}")

    async def _reap(self, sandbox_id: str, running: Running) -> None:
        """Wait for the end of a run, clear away what is left of it, and tell."""
        await running.watch.ended.wait()
        reason = self._reason(sandbox_id, running)
        await asyncio.to_thread(self._clear_away, sandbox_id, running.run, running.helper)
        if self._running.get(sandbox_id) is running:
            await self._egress.forget(sandbox_id)
            await self._veth.disconnect(sandbox_id)
        self._reasons[sandbox_id] = (running.watch.exit_code, reason)
        if self._running.get(sandbox_id) is running:
            del self._running[sandbox_id]
        if running.gone is not None:
            running.gone.set()
        if not running.is_stopping:
            log.info("sandbox_ended", sandbox_id=sandbox_id, reason=reason)
            for listener in self._listeners:
                listener.put_nowait(RuntimeEvent(sandbox_id, gone=False, reason=reason))

    def _reason(self, sandbox_id: str, running: Running) -> str:
        code = running.watch.exit_code
        words = self._layout.last_words(sandbox_id)
        # unshare(1) reports a killed child by a status and a message of its own.
        was_killed = code is None or code > 128 or words.startswith("unshare: ")
        if running.group is not None and running.group.oom_kills() and was_killed:
            return "killed: out of memory"
        if was_killed:
            return "the sandbox's first process was killed"
        return f"the sandbox's first process exited with status {code}: {words}".rstrip(": ")

    async def _stop(self, sandbox_id: str, *, force: bool, grace_seconds: float) -> None:
        running = self._running.get(sandbox_id)
        if running is None or running.gone is None:
            return
        running.is_stopping = True
        if running.is_paused:
            await self._let_run(running)  # what is frozen cannot end
        if not force:
            running.run.first.signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_seconds):
                    await running.watch.ended.wait()
        running.run.first.signal(signal.SIGKILL)
        try:
            async with asyncio.timeout(KILL_TIMEOUT_SECONDS):
                await running.gone.wait()
        except TimeoutError:
            raise RuntimeFailure(
                f"sandbox {sandbox_id} does not end after being killed: a process is stuck in the kernel"
            ) from None

    def _clear_away(self, sandbox_id: str, run: Run, helper: subprocess.Popen[bytes] | None) -> None:
        """End every process of a run and remove its group. Blocks; may be repeated."""
        for process in (run.first, run.monitor, *run.helpers):
            process.signal(signal.SIGKILL)
        if helper is not None:
            helper.kill()
            helper.wait()
        group = Group(tuple(Path(path) for path in run.cgroup))
        group.thaw()
        if not self._layout.is_isolated:
            kill_marked(run.run_id)
        for pid in group.members():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        group.remove()
        with contextlib.suppress(FileNotFoundError):
            self._layout.run_file(sandbox_id).unlink()


@asynccontextmanager
async def open_local_runtime(options: LocalOptions) -> AsyncIterator[LocalRuntime]:
    """The local runtime, after a trial that it works here; adopts or clears away what an earlier process left.

    Raises `RuntimeFailure` with a text that names `--isolation none` where namespaces are refused.
    """
    if options.local_builds and options.isolation is Isolation.NONE:
        raise Unsupported(BUILDS_NEED_NAMESPACES)
    options.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    options.doors_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    bundle = await asyncio.to_thread(ensure_bundle, options.data_dir / "bundles")
    layout = Layout(options, bundle)
    runtime = LocalRuntime(layout, find_limits())
    try:
        await runtime.adopt()
        await probe(layout, runtime._veth)
        yield runtime
    finally:
        await runtime.close()


async def _drain(queue: asyncio.Queue[RuntimeEvent]) -> AsyncIterator[RuntimeEvent]:
    while True:
        yield await queue.get()


async def _nothing() -> None:
    return
