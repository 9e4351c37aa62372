"""A control plane's services and a runner's actions over the memory runtime, called in order and nothing by itself."""

from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cryptography.fernet import Fernet
from sqlalchemy import select

from sandyard.bus.memory import MemoryBus
from sandyard.clock import ManualClock
from sandyard.ids import SeededIds
from sandyard_api.database import Database, open_database
from sandyard_api.errors import Conflict
from sandyard_api.jobs.client import LeaseVoid, UnknownContext, UnknownRoute
from sandyard_api.jobs.models import JobRow, JobState
from sandyard_api.jobs.wire import (
    ClaimRequest,
    CommandRecord,
    Heartbeat,
    ImageProgress,
    ImageResult,
    Job,
    JobProgress,
    JobResult,
    KeyGrant,
    Observation,
    Route,
    SessionRecord,
    Wanted,
)
from sandyard_api.options import ControlPlaneOptions
from sandyard_api.organizations.service import keep_default_organization
from sandyard_api.runners.asking import RunnerClients
from sandyard_api.sandboxes.models import Sandbox
from sandyard_api.sealing.service import Seal
from sandyard_api.services import Services, build_services
from sandyard_api.timers import Timers
from sandyard_migrations.upgrade import upgrade
from sandyard_runner.actions import Actions
from sandyard_runner.image_work import ImageWork
from sandyard_runner.jobs import JobLoop
from sandyard_runner.observations import Observations
from sandyard_runner.observe import Observer
from sandyard_runner.reconcile import Reconciler
from sandyard_runner.registry import Registry
from sandyard_runner.runtime.memory import MemoryRuntime
from sandyard_runner.volume_work import VolumeWork

RUNNER_ID = "runner-1"


class DirectControlPlane:
    """The internal API as function calls."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def claim(self, request: ClaimRequest) -> Sequence[Job]:
        with self._services.job_hints.watch(request.runner_id) as watch:
            return (await self._services.dispatch.claim(request, watch, lambda: False)).jobs

    async def progress_image(self, job_id: str, progress: ImageProgress) -> None:
        await _void(self._services.snapshot_work.progress(job_id, progress))

    async def finish_image(self, job_id: str, result: ImageResult) -> None:
        await _void(self._services.snapshot_work.finish(job_id, result))

    async def wanted_images(self) -> Sequence[str]:
        return await self._services.dispatch.wanted_images()

    async def wanted_volumes(self) -> Sequence[str]:
        return await self._services.volumes.wanted()

    async def fetch_context(self, organization_id: str, context_hash: str, target: Path) -> None:
        raise UnknownContext(context_hash)

    async def progress(self, job_id: str, progress: JobProgress) -> None:
        await _void(self._services.dispatch.progress(job_id, progress))

    async def finish(self, job_id: str, result: JobResult) -> None:
        await _void(self._services.dispatch.finish(job_id, result))

    async def observe(self, observations: Sequence[Observation]) -> None:
        await self._services.dispatch.observe(observations)

    async def wanted(self, runner_id: str) -> Sequence[Wanted]:
        return await self._services.dispatch.wanted(runner_id)

    async def heartbeat(self, runner_id: str, heartbeat: Heartbeat) -> None:
        beat = heartbeat
        await self._services.runners.beat(runner_id, url=beat.url, runtime=beat.runtime, capabilities=beat.capabilities)

    async def record(self, sessions: Sequence[SessionRecord], commands: Sequence[CommandRecord]) -> None:
        await self._services.sessions.record(sessions, commands)

    async def append_build_log(self, sandbox_id: str, text: str) -> None:
        await self._services.build_log.append(sandbox_id, text)

    async def route(self, key: str) -> Route:
        raise UnknownRoute(key)

    async def ssh_access(self, token: str) -> str:
        raise UnknownRoute(token)

    async def check_key(self, key: str) -> KeyGrant:
        return await self._services.keys.check(key)

    async def touch(self, activity: Mapping[str, datetime]) -> None:
        await self._services.dispatch.touch(dict(activity))


async def _void(call: Awaitable[None]) -> None:
    try:
        await call
    except Conflict as error:
        raise LeaseVoid(str(error)) from error


class DeafObserver(Observer):
    """Hears what the runtime tells, and follows no daemon: the memory runtime has none."""

    def watch(self, sandbox_id: str) -> None:
        pass

    def hold(self, sandbox_id: str) -> None:
        pass

    def release(self, sandbox_id: str) -> None:
        pass


@dataclass
class Whole:
    """Everything, with the handles that a test turns."""

    database: Database
    services: Services
    timers: Timers
    clock: ManualClock
    runtime: MemoryRuntime
    organization_id: str
    plane: DirectControlPlane
    actions: Actions
    observations: Observations
    reconciler: Reconciler
    held: list[Job] = field(default_factory=list)
    """Jobs that were claimed and are not worked on yet."""

    async def rows(self) -> dict[str, Sandbox]:
        """Every record, by id."""
        async with self.database.reading() as db:
            return {row.id: row for row in await db.scalars(select(Sandbox))}

    async def busy(self) -> set[str]:
        """Ids with an open job."""
        async with self.database.reading() as db:
            return set(await db.scalars(select(JobRow.sandbox_id).where(JobRow.state == JobState.OPEN)))

    async def beat(self) -> None:
        """The runner is alive."""
        await self.plane.heartbeat(RUNNER_ID, Heartbeat("unix:/nowhere", "memory", {}))

    async def claim(self, limit: int = 4) -> None:
        """Take jobs and put them aside."""
        self.held += await self.plane.claim(ClaimRequest(RUNNER_ID, limit=limit, wait_seconds=0))

    async def work(self) -> None:
        """Do what was taken and tell the results."""
        while self.held:
            job = self.held.pop(0)
            try:
                await self.plane.finish(job.id, await self.actions.act(job))
            except LeaseVoid:
                continue

    async def settle(self) -> None:
        """Let everything that is due and everything that is asked for happen, until nothing is left to do."""
        for _ in range(12):
            await self.beat()
            await self.clock.advance(45)
            await self.timers.look()
            await self.claim(32)
            await self.work()
            await self.reconciler.run_once()
            await self.observations.flush()


@asynccontextmanager
async def open_whole(database_url: str) -> AsyncIterator[Whole]:
    """On an empty database; no task runs by itself."""
    async with AsyncExitStack() as stack:
        clock, ids = ManualClock(), SeededIds()
        database = await stack.enter_async_context(open_database(database_url))
        await upgrade(database.engine)
        organization_id, _ = await keep_default_organization(database, clock, ids)
        seal = Seal(Fernet.generate_key().decode())
        options = ControlPlaneOptions("key", "token", "", wait_seconds=0.0)
        clients = await stack.enter_async_context(RunnerClients(options.internal_token))
        services = build_services(database, MemoryBus(), seal, clients, clock=clock, ids=ids, options=options)
        await services.snapshots.keep_general()
        plane, runtime = DirectControlPlane(services), MemoryRuntime(Path("/nonexistent"))
        images = ImageWork(runtime, plane)
        registry, observations = Registry(runtime), Observations(plane, clock)
        observer = DeafObserver(
            runtime=runtime, control_plane=plane, registry=registry, observations=observations, clock=clock
        )
        jobs = JobLoop(
            runner_id=RUNNER_ID,
            runtime=runtime,
            control_plane=plane,
            registry=registry,
            observer=observer,
            images=images,
            clock=clock,
            max_parallel=1,
        )
        reconciler = Reconciler(
            runner_id=RUNNER_ID,
            runtime=runtime,
            control_plane=plane,
            registry=registry,
            observer=observer,
            observations=observations,
            jobs=jobs,
            images=images,
            volumes=VolumeWork(runtime, plane),
        )
        timers = Timers(
            database,
            clock,
            sandboxes=services.sandboxes,
            announcer=services.announcer,
            snapshot_work=services.snapshot_work,
            clearing=services.clearing,
            image_clearing=services.image_clearing,
            period_seconds=1e9,
            destroyed_hours=24.0,
        )
        actions = Actions(runtime, plane, registry, observer, images)
        whole = Whole(
            database, services, timers, clock, runtime, organization_id, plane, actions, observations, reconciler
        )
        await whole.beat()
        yield whole
