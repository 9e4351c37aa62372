"""Comparing what should be on this runner with what is, and closing the gap."""

import asyncio
from collections.abc import Mapping

import structlog

from sandyard_api.jobs.client import RunnerControlPlane
from sandyard_api.jobs.wire import Wanted
from sandyard_api.sandboxes.states import Desired, Observed
from sandyard_runner.errors import RuntimeFailure
from sandyard_runner.furnish import furnish
from sandyard_runner.image_work import ImageWork
from sandyard_runner.jobs import JobLoop
from sandyard_runner.observations import Observations
from sandyard_runner.observe import Observer
from sandyard_runner.registry import Registry
from sandyard_runner.runtime.contract import Present, PresentState, Runtime
from sandyard_runner.volume_work import VolumeWork

ENDED_WITH_RUNNER = "its processes ended while no runner watched"
LOST = "the sandbox does not exist on its runner any more"
ALIVE = frozenset(
    (
        *(Observed.STARTED, Observed.STOPPING, Observed.STARTING, Observed.PAUSING, Observed.PAUSED),
        *(Observed.RESUMING, Observed.RESIZING, Observed.SNAPSHOTTING),
    )
)
"""States in which a sandbox has processes, or had a moment ago."""
SETTLED = ALIVE | {Observed.STOPPED}
"""States in which a sandbox has a container; in others a job is still to make it, or has removed it."""

log = structlog.get_logger(__name__)


class Reconciler:
    """Run at start and on a timer, never twice at once. Leaves alone what a job is open for."""

    def __init__(
        self,
        *,
        runner_id: str,
        runtime: Runtime,
        control_plane: RunnerControlPlane,
        registry: Registry,
        observer: Observer,
        observations: Observations,
        jobs: JobLoop,
        images: ImageWork,
        volumes: VolumeWork,
    ) -> None:
        self._runner_id = runner_id
        self._runtime = runtime
        self._control_plane = control_plane
        self._registry = registry
        self._observer = observer
        self._observations = observations
        self._jobs = jobs
        self._images = images
        self._volumes = volumes
        self._running = asyncio.Lock()

    async def run_once(self) -> None:
        """Compare and repair. Raises `ControlPlaneError` and `RuntimeFailure`; may be repeated."""
        async with self._running:
            mark = self._jobs.mark()
            # First what is there: a sandbox that appears meanwhile has a row already, and is not taken for an orphan.
            present = {item.sandbox_id: item for item in await self._runtime.present()}
            wanted = {item.spec.sandbox_id: item for item in await self._control_plane.wanted(self._runner_id)}
            self._jobs.forget_except(wanted)
            await self._remove_orphans(present, wanted)
            for sandbox_id, item in wanted.items():
                # What a job changed after `present` was asked for is newer than what we know.
                if not item.has_job and not self._jobs.touched_since(sandbox_id, mark):
                    await self._repair(item, present.get(sandbox_id))
            await self._images.remove_unwanted()
            await self._volumes.remove_unwanted()

    async def _remove_orphans(self, present: Mapping[str, Present], wanted: Mapping[str, Wanted]) -> None:
        for sandbox_id in present.keys() - wanted.keys():
            if not self._jobs.touched_since(sandbox_id, self._jobs.mark()):
                log.warning("orphan_removed", sandbox_id=sandbox_id)
                await self._guarded(sandbox_id, remove=True)

    async def _repair(self, wanted: Wanted, present: Present | None) -> None:
        sandbox_id = wanted.spec.sandbox_id
        if present is None:
            self._report_missing(wanted)
        elif wanted.desired is Desired.DESTROYED:
            await self._guarded(sandbox_id, remove=True)
            self._observations.add(sandbox_id, Observed.DESTROYED, "removed as it was asked for")
        elif wanted.observed is Observed.ARCHIVED:
            log.warning("archived_one_removed", sandbox_id=sandbox_id)
            await self._guarded(sandbox_id, remove=True)
        elif present.state is PresentState.STOPPED:
            if wanted.observed in ALIVE:
                self._observations.add(sandbox_id, Observed.STOPPED, present.reason or ENDED_WITH_RUNNER)
        elif wanted.observed is Observed.STOPPED:
            log.info("stray_stopped", sandbox_id=sandbox_id)
            await self._guarded(sandbox_id, remove=False)
        else:
            await self._adopt(wanted, is_paused=present.state is PresentState.PAUSED)

    def _report_missing(self, wanted: Wanted) -> None:
        sandbox_id = wanted.spec.sandbox_id
        if wanted.desired is Desired.DESTROYED:
            self._observations.add(sandbox_id, Observed.DESTROYED, "it does not exist any more")
        elif wanted.observed in SETTLED:
            self._observations.add(sandbox_id, Observed.ERROR, LOST)

    async def _adopt(self, wanted: Wanted, *, is_paused: bool) -> None:
        """Watch it again where nobody does, and say what it is where that is not what is believed of it."""
        sandbox_id, seen = wanted.spec.sandbox_id, Observed.PAUSED if is_paused else Observed.STARTED
        if wanted.observed not in (Observed.STARTED, Observed.PAUSED):
            return
        if not self._observer.is_watching(sandbox_id):
            self._registry.add(sandbox_id, wanted.spec.door_secret)
            self._observer.watch(sandbox_id)
            log.info("sandbox_watched_again", sandbox_id=sandbox_id)
        if is_paused:
            self._observer.hold(sandbox_id)
        else:
            self._observer.release(sandbox_id)
        try:
            # Rules that an interrupted job left undone, secrets that changed, and everything after a restart of ours.
            await furnish(self._runtime, self._registry, wanted.spec, tell_daemon=not is_paused)
        except RuntimeFailure as failure:
            log.error("network_not_held", sandbox_id=sandbox_id, reason=failure.message)
        if seen is not wanted.observed:
            self._observations.add(sandbox_id, seen, f"{'paused' if is_paused else 'resumed'} outside Sandyard")

    async def _guarded(self, sandbox_id: str, *, remove: bool) -> None:
        """Stop or remove one sandbox; a failure is told and tried again by the next run."""
        self._registry.discard(sandbox_id)
        await self._observer.unwatch(sandbox_id)
        try:
            if remove:
                await self._runtime.remove(sandbox_id)
            else:
                await self._runtime.stop(sandbox_id)
        except RuntimeFailure as failure:
            log.error("reconcile_failed", sandbox_id=sandbox_id, reason=failure.message)
