"""What each kind of job does through the runtime. Each may be repeated from its beginning at any point."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus

import msgspec
import structlog

from sandyard_api.jobs.client import ControlPlane, ControlPlaneUnreachable, LeaseVoid
from sandyard_api.jobs.wire import ImageSource, Job, JobKind, JobProgress, JobResult, SandboxSpec
from sandyard_api.sandboxes.states import Observed
from sandyard_runner.door_http import BEGIN_TIMEOUT_SECONDS, ask_json
from sandyard_runner.errors import DaemonUnreachable, ImageFailure, NotPresent, RuntimeFailure, Unsupported
from sandyard_runner.furnish import furnish
from sandyard_runner.image_work import ImageWork
from sandyard_runner.observe import Observer
from sandyard_runner.registry import Registry
from sandyard_runner.runtime.contract import CanCommit, CanPause, CanResize, Present, PresentState, Runtime

STAYS = frozenset({JobKind.PAUSE, JobKind.RESUME, JobKind.RESIZE, JobKind.COMMIT, JobKind.ARCHIVE, JobKind.NETWORK})
"""When one of these fails, the sandbox is as it was; what it is, the runtime says."""
SEEN = {
    PresentState.RUNNING: Observed.STARTED,
    PresentState.PAUSED: Observed.PAUSED,
    PresentState.STOPPED: Observed.STOPPED,
}

log = structlog.get_logger(__name__)


class _Failed(Exception):
    """A job's end that is not `error`, in words for the user."""

    def __init__(self, observed: Observed, failure: RuntimeFailure) -> None:
        super().__init__(failure.message)
        self.observed = observed
        self.failure = failure


class Actions:
    """Does jobs; whose lease is whose and how often to try is not its business."""

    def __init__(
        self,
        runtime: Runtime,
        control_plane: ControlPlane,
        registry: Registry,
        observer: Observer,
        images: ImageWork,
    ) -> None:
        self._runtime = runtime
        self._control_plane = control_plane
        self._registry = registry
        self._observer = observer
        self._images = images
        self._by_kind: Mapping[JobKind, Callable[[Job], Awaitable[JobResult]]] = {
            JobKind.CREATE: self._create,
            JobKind.START: self._start,
            JobKind.STOP: self._stop,
            JobKind.DESTROY: self._destroy,
            JobKind.PAUSE: self._pause,
            JobKind.RESUME: self._resume,
            JobKind.RESIZE: self._resize,
            JobKind.COMMIT: self._commit,
            JobKind.ARCHIVE: self._archive,
            JobKind.RESTORE: self._bring_up,
            JobKind.FORK: self._bring_up,
            JobKind.RECOVER: self._bring_up,
            JobKind.NETWORK: self._change_network,
        }

    async def act(self, job: Job) -> JobResult:
        """Do one job; what goes wrong is in its result. Raises `LeaseVoid`."""
        try:
            return await self._by_kind[job.kind](job)
        except _Failed as failed:
            return _failure(job, failed.observed, failed.failure)
        except ImageFailure as failure:
            return _failure(job, Observed.ERROR if job.spec.image is None else Observed.BUILD_FAILED, failure)
        except RuntimeFailure as failure:
            return await self._failed(job, failure)
        except LeaseVoid:
            raise
        except Exception as error:  # a loop that serves every sandbox must survive one job
            log.exception("job_broke", kind=job.kind.value)
            reason = f"the runner could not do this: {type(error).__name__}: {error}"
            return JobResult(job.lease, ok=False, observed=Observed.ERROR, reason=reason)

    async def _create(self, job: Job) -> JobResult:
        await self._make(job)
        return await self._start(job)

    async def _bring_up(self, job: Job) -> JobResult:
        """Make what is missing, then start."""
        sandbox_id = job.spec.sandbox_id
        if await self._present(sandbox_id) is None:
            await self._make(job)
        if not job.stay_stopped:
            return await self._start(job)
        async with self._observer.ending(sandbox_id):
            await self._runtime.stop(sandbox_id)
        self._registry.discard(sandbox_id)
        return JobResult(job.lease, ok=True, observed=Observed.STOPPED)

    async def _make(self, job: Job) -> None:
        if job.source_id is not None:
            await self._make_fork(job, job.source_id)
        elif job.image is not None:
            await self._make_from_archive(job, job.image)
        else:
            await self._make_new(job)

    async def _make_new(self, job: Job) -> None:
        spec = job.spec
        is_build = spec.source is not None and spec.source.dockerfile is not None
        fetching = Observed.BUILDING if is_build else Observed.PULLING
        await self._progress(job, fetching if spec.image is not None else Observed.CREATING)
        await self._fetch_image(job)
        if spec.image is not None:
            await self._progress(job, Observed.CREATING)
        await self._runtime.create(spec)

    async def _make_fork(self, job: Job, source_id: str) -> None:
        keeper, image = self._keeper(), job.spec.image or ""
        await self._progress(job, Observed.FORKING)
        if not await keeper.has_image(image):
            await keeper.commit(source_id, image)
        await self._progress(job, Observed.CREATING)
        await self._runtime.create(job.spec)

    async def _make_from_archive(self, job: Job, image: str) -> None:
        await self._progress(job, Observed.RESTORING)
        if not await self._keeper().has_image(image):
            raise RuntimeFailure(f"No valid backup snapshot found: {image} is not on this machine any more")
        await self._runtime.create(msgspec.structs.replace(job.spec, image=image))

    async def _fetch_image(self, job: Job) -> None:
        spec = job.spec
        try:
            await self._images.prepare(spec.sandbox_id, spec.source or ImageSource(spec.image, spec.organization_id))
        except RuntimeFailure as failure:
            observed = Observed.ERROR if spec.image is None else Observed.BUILD_FAILED
            raise _Failed(observed, failure) from failure

    async def _start(self, job: Job) -> JobResult:
        spec = job.spec
        await self._progress(job, Observed.STARTING)
        await self._runtime.start(spec)
        self._registry.add(spec.sandbox_id, spec.door_secret)
        self._observer.watch(spec.sandbox_id)
        await furnish(self._runtime, self._registry, spec)
        version = await self._initialize(spec)
        return JobResult(job.lease, ok=True, observed=Observed.STARTED, daemon_version=version)

    async def _stop(self, job: Job) -> JobResult:
        sandbox_id = job.spec.sandbox_id
        await self._progress(job, Observed.STOPPING)
        async with self._observer.ending(sandbox_id):
            await self._runtime.stop(sandbox_id, force=job.force)
        self._registry.discard(sandbox_id)
        return JobResult(job.lease, ok=True, observed=Observed.STOPPED)

    async def _destroy(self, job: Job) -> JobResult:
        sandbox_id = job.spec.sandbox_id
        await self._progress(job, Observed.DESTROYING)
        async with self._observer.ending(sandbox_id):
            await self._runtime.remove(sandbox_id)
        self._registry.discard(sandbox_id)
        if isinstance(self._runtime, CanCommit):
            for image in job.spec.owned_images:
                await self._runtime.remove_image(image)
        return JobResult(job.lease, ok=True, observed=Observed.DESTROYED)

    async def _pause(self, job: Job) -> JobResult:
        sandbox_id = job.spec.sandbox_id
        if not isinstance(self._runtime, CanPause):
            raise Unsupported(f"the {self._runtime.name} runtime cannot pause")
        await self._progress(job, Observed.PAUSING)
        async with self._observer.holding(sandbox_id):
            await self._runtime.pause(sandbox_id)
        return JobResult(job.lease, ok=True, observed=Observed.PAUSED)

    async def _resume(self, job: Job) -> JobResult:
        spec = job.spec
        if not isinstance(self._runtime, CanPause):
            raise Unsupported(f"the {self._runtime.name} runtime cannot resume")
        await self._progress(job, Observed.RESUMING)
        await self._runtime.resume(spec.sandbox_id)
        self._registry.add(spec.sandbox_id, spec.door_secret)
        self._observer.release(spec.sandbox_id)
        await furnish(self._runtime, self._registry, spec)
        return JobResult(job.lease, ok=True, observed=Observed.STARTED)

    async def _resize(self, job: Job) -> JobResult:
        sandbox_id = job.spec.sandbox_id
        if job.resources is None or not isinstance(self._runtime, CanResize):
            raise Unsupported(f"the {self._runtime.name} runtime cannot resize")
        await self._progress(job, Observed.RESIZING)
        await self._runtime.resize(sandbox_id, job.resources)
        return JobResult(job.lease, ok=True, observed=await self._seen(sandbox_id))

    async def _commit(self, job: Job) -> JobResult:
        sandbox_id = job.spec.sandbox_id
        await self._progress(job, Observed.SNAPSHOTTING)
        await self._keeper().commit(sandbox_id, job.image or "")
        return JobResult(job.lease, ok=True, observed=await self._seen(sandbox_id))

    async def _archive(self, job: Job) -> JobResult:
        sandbox_id, image, keeper = job.spec.sandbox_id, job.image or "", self._keeper()
        await self._progress(job, Observed.ARCHIVING)
        # One that is gone was archived by an attempt whose result got lost.
        if await self._present(sandbox_id) is not None or not await keeper.has_image(image):
            await keeper.commit(sandbox_id, image)
            await _to_its_end(self._runtime.remove(sandbox_id))
        self._registry.discard(sandbox_id)
        return JobResult(job.lease, ok=True, observed=Observed.ARCHIVED)

    async def _change_network(self, job: Job) -> JobResult:
        sandbox_id = job.spec.sandbox_id
        seen = await self._seen(sandbox_id)
        await furnish(self._runtime, self._registry, job.spec, tell_daemon=seen is Observed.STARTED)
        return JobResult(job.lease, ok=True, observed=seen)

    async def _initialize(self, spec: SandboxSpec) -> str | None:
        """Let the daemon run user code: the network's rules stand since `start` returned. Gives its version.

        Raises `DaemonUnreachable`.
        """
        door = self._registry.find_door(spec.sandbox_id)
        if door is None or not door.path.exists():
            return None  # `start` waits for the door; only the memory runtime has none
        if spec.was_warm:
            # What was made for a warm pool knows neither its user's variables nor whose it is.
            variables = {"DAYTONA_ORGANIZATION_ID": spec.organization_id, **spec.env}
            await ask_json(door, "/env", json_body={"set": variables}, head_seconds=BEGIN_TIMEOUT_SECONDS)
        status, answer = await ask_json(door, "/init", json_body={}, head_seconds=BEGIN_TIMEOUT_SECONDS)
        if status != HTTPStatus.OK:
            raise DaemonUnreachable(f"the daemon refused to begin: {answer.get('message', status)}")
        _, health = await ask_json(door, "/_daemon/health", head_seconds=BEGIN_TIMEOUT_SECONDS)
        return str(health["version"]) if "version" in health else None

    async def _progress(self, job: Job, observed: Observed) -> None:
        """Tell how far the work has come. An unreachable control plane does not stop it; a void lease does."""
        with contextlib.suppress(ControlPlaneUnreachable):
            await self._control_plane.progress(job.id, JobProgress(job.lease, observed))

    def _keeper(self) -> CanCommit:
        if not isinstance(self._runtime, CanCommit):
            raise Unsupported(f"the {self._runtime.name} runtime cannot keep files as an image")
        return self._runtime

    async def _present(self, sandbox_id: str) -> Present | None:
        return next((item for item in await self._runtime.present() if item.sandbox_id == sandbox_id), None)

    async def _seen(self, sandbox_id: str) -> Observed:
        """What it is after work that should leave it as it was."""
        found = await self._present(sandbox_id)
        if found is None:
            raise NotPresent(sandbox_id)
        return SEEN[found.state]

    async def _failed(self, job: Job, failure: RuntimeFailure) -> JobResult:
        if job.kind not in STAYS:
            return _failure(job, Observed.ERROR, failure)
        try:
            found = await self._present(job.spec.sandbox_id)
        except RuntimeFailure as unseen:
            return _failure(job, Observed.ERROR, unseen)
        if found is None:
            return _failure(job, Observed.ERROR, failure)
        if isinstance(failure, NotPresent) and found.reason:
            failure = RuntimeFailure(found.reason)
        return _failure(job, SEEN[found.state], failure)


async def _to_its_end(work: Awaitable[None]) -> None:
    """Await what must not be left half done: who is cancelled meanwhile waits for its end first."""
    working = asyncio.ensure_future(work)
    try:
        await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.gather(working, return_exceptions=True)
        raise


def _failure(job: Job, observed: Observed, failure: RuntimeFailure) -> JobResult:
    return JobResult(job.lease, ok=False, observed=observed, reason=failure.message, recoverable=failure.recoverable)
