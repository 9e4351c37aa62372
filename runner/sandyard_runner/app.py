"""The runner as one object: its tasks, its HTTP API, and what becomes of its sandboxes when it ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum

import msgspec
import structlog

from sandyard.bus.contract import Bus, BusError
from sandyard.clock import Clock
from sandyard_api.jobs.client import ControlPlaneError, RunnerControlPlane
from sandyard_api.jobs.wire import Heartbeat
from sandyard_api.sandboxes.states import Observed
from sandyard_runner.errors import RuntimeFailure
from sandyard_runner.http_api import App, create_app
from sandyard_runner.image_work import ImageWork
from sandyard_runner.jobs import Backoff, JobLoop
from sandyard_runner.observations import Observations
from sandyard_runner.observe import Observer
from sandyard_runner.reconcile import Reconciler
from sandyard_runner.registry import Registry
from sandyard_runner.relay import Relay
from sandyard_runner.runtime.contract import CanCommit, PresentState, Runtime
from sandyard_runner.usage import Usage
from sandyard_runner.volume_work import VolumeWork

LAST_WORD_SECONDS = 5.0

log = structlog.get_logger(__name__)


class Leave(StrEnum):
    """What becomes of the sandboxes when the runner ends."""

    RUNNING = "running"
    STOP = "stop"
    REMOVE = "remove"


class RunnerOptions(msgspec.Struct, frozen=True):
    """What a runner is told."""

    runner_id: str
    url: str
    """Where proxies find this runner's API: `http://host:port` or `unix:/path`."""
    internal_token: str
    leave: Leave = Leave.RUNNING
    max_parallel_jobs: int = 8
    heartbeat_seconds: float = 10.0
    reconcile_seconds: float = 30.0


class Runner(msgspec.Struct, frozen=True):
    """A running runner."""

    app: App
    """Its ASGI application; needs WebSockets for tunnels."""


@asynccontextmanager
async def open_runner(
    *, runtime: Runtime, control_plane: RunnerControlPlane, bus: Bus, clock: Clock, options: RunnerOptions
) -> AsyncIterator[Runner]:
    """Register with the control plane and work until the block ends, then do as `options.leave` says.

    Does not wait for the control plane: one that comes up later is found later.
    """
    registry = Registry(runtime)
    relay = Relay(registry.find_door, bus, clock)
    usage = Usage(registry, clock)
    observations = Observations(control_plane, clock)
    observer = Observer(
        runtime=runtime, control_plane=control_plane, registry=registry, observations=observations, clock=clock
    )
    images, volumes = ImageWork(runtime, control_plane), VolumeWork(runtime, control_plane)
    jobs = JobLoop(
        runner_id=options.runner_id,
        runtime=runtime,
        control_plane=control_plane,
        registry=registry,
        observer=observer,
        images=images,
        clock=clock,
        max_parallel=options.max_parallel_jobs,
    )
    reconciler = Reconciler(
        runner_id=options.runner_id,
        runtime=runtime,
        control_plane=control_plane,
        registry=registry,
        observer=observer,
        observations=observations,
        jobs=jobs,
        images=images,
        volumes=volumes,
    )
    working = asyncio.create_task(
        _keep_working(
            runtime, control_plane, clock, options, (observer, observations, reconciler, jobs, volumes, usage, bus)
        ),
        name="runner",
    )
    try:
        yield Runner(create_app(relay, registry.find_door, usage.of, options.internal_token))
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        await _leave(runtime, observer, observations, options.leave)
        if options.leave is Leave.REMOVE:
            await _remove_images(runtime, control_plane, options.runner_id)
        await observer.close()
        await relay.close()


Parts = tuple[Observer, Observations, Reconciler, JobLoop, VolumeWork, Usage, Bus]


async def _keep_working(
    runtime: Runtime, control_plane: RunnerControlPlane, clock: Clock, options: RunnerOptions, parts: Parts
) -> None:
    backoff = Backoff(clock)
    while True:
        try:
            await _work(runtime, control_plane, clock, options, parts)
        except Exception:  # a runner that ended by a mistake of ours would leave every sandbox unattended
            log.exception("runner_broke")
        await backoff.pause()


async def _work(
    runtime: Runtime, control_plane: RunnerControlPlane, clock: Clock, options: RunnerOptions, parts: Parts
) -> None:
    observer, observations, reconciler, jobs, volumes, usage, bus = parts
    heartbeat = _heartbeat(runtime, options)
    async with asyncio.TaskGroup() as group:
        # Listening comes first: what happens while we compare is then told, not missed.
        group.create_task(_watch_runtime(observer, clock), name="runtime events")
        group.create_task(observations.run(), name="observations")
        await _register(control_plane, heartbeat, reconciler, observations, clock, options.runner_id)
        group.create_task(_beat(control_plane, runtime, clock, options), name="heartbeat")
        group.create_task(_reconcile(reconciler, clock, options.reconcile_seconds), name="reconcile")
        group.create_task(jobs.run(), name="jobs")
        group.create_task(usage.run(), name="usage")
        group.create_task(_hear_of_volumes(volumes, bus, clock), name="volumes")


async def _register(
    control_plane: RunnerControlPlane,
    heartbeat: Heartbeat,
    reconciler: Reconciler,
    observations: Observations,
    clock: Clock,
    runner_id: str,
) -> None:
    """The first heartbeat and the first comparison, whose finds are told before any job is taken.

    Whoever sees the runner at work finds no sandbox started that an earlier run of it left dead.
    """
    backoff = Backoff(clock)
    while True:
        try:
            await control_plane.heartbeat(runner_id, heartbeat)
            await reconciler.run_once()
            await observations.flush()
            return
        except (ControlPlaneError, RuntimeFailure) as error:
            log.warning("registration_failed", reason=str(error))
            await backoff.pause()


def _heartbeat(runtime: Runtime, options: RunnerOptions) -> Heartbeat:
    """With the table as it is now: what a runtime can hold may come later, as network rules with our own image."""
    rows = {row.name: {"enforcement": row.enforcement.value, "detail": row.detail} for row in runtime.capabilities()}
    return Heartbeat(options.url, runtime.name, rows)


async def _beat(control_plane: RunnerControlPlane, runtime: Runtime, clock: Clock, options: RunnerOptions) -> None:
    while True:
        await clock.sleep(options.heartbeat_seconds)
        try:
            await control_plane.heartbeat(options.runner_id, _heartbeat(runtime, options))
        except ControlPlaneError as error:
            log.warning("heartbeat_failed", reason=str(error))


async def _reconcile(reconciler: Reconciler, clock: Clock, seconds: float) -> None:
    while True:
        await clock.sleep(seconds)
        try:
            await reconciler.run_once()
        except (ControlPlaneError, RuntimeFailure) as error:
            log.warning("reconcile_failed", reason=str(error))


async def _hear_of_volumes(volumes: VolumeWork, bus: Bus, clock: Clock) -> None:
    """Listen for deleted volumes; while the bus is away, the reconciler finds them."""
    backoff = Backoff(clock)
    while True:
        try:
            await volumes.listen(bus)
        except BusError as error:
            log.warning("volume_hints_broke", reason=str(error))
        await backoff.pause()


async def _watch_runtime(observer: Observer, clock: Clock) -> None:
    """Listen to the runtime; when its event stream breaks, listen again. The reconciler finds what was missed."""
    backoff = Backoff(clock)
    while True:
        try:
            await observer.run()
        except RuntimeFailure as failure:
            log.warning("runtime_events_broke", reason=failure.message)
        await backoff.pause()


async def _leave(runtime: Runtime, observer: Observer, observations: Observations, leave: Leave) -> None:
    """Stop or remove every sandbox, all at once, and tell the control plane while it is still there."""
    if leave is Leave.RUNNING:
        return
    try:
        present = await runtime.present()
    except RuntimeFailure as failure:
        log.error("leaving_failed", reason=failure.message)
        return
    if leave is Leave.STOP:
        present = [item for item in present if item.state is not PresentState.STOPPED]
    await asyncio.gather(*(_end(runtime, observer, observations, item.sandbox_id, leave) for item in present))
    try:
        async with asyncio.timeout(LAST_WORD_SECONDS):
            await observations.flush()
    except (ControlPlaneError, TimeoutError) as error:
        log.warning("last_observations_lost", reason=str(error))  # the next start's comparison finds the same


async def _remove_images(runtime: Runtime, control_plane: RunnerControlPlane, runner_id: str) -> None:
    """Archives and beginnings of forks: with the sandboxes they were made for, they are of no use."""
    if not isinstance(runtime, CanCommit):
        return
    try:
        for wanted in await control_plane.wanted(runner_id):
            for image in wanted.spec.owned_images:
                await runtime.remove_image(image)
    except (ControlPlaneError, RuntimeFailure) as failure:
        log.error("images_left_behind", reason=str(failure))


async def _end(runtime: Runtime, observer: Observer, observations: Observations, sandbox_id: str, leave: Leave) -> None:
    try:
        if leave is Leave.REMOVE:
            async with observer.ending(sandbox_id):
                await runtime.remove(sandbox_id)
            observations.add(sandbox_id, Observed.DESTROYED, "removed when Sandyard ended")
        else:
            async with observer.ending(sandbox_id):
                await runtime.stop(sandbox_id)
            observations.add(sandbox_id, Observed.STOPPED, "stopped when Sandyard ended")
    except RuntimeFailure as failure:
        log.error("sandbox_left_behind", sandbox_id=sandbox_id, reason=failure.message)
