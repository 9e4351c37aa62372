"""The job loop: claims work under a lease, does it through the runtime, tells the result. Everything is idempotent."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Mapping
from http import HTTPStatus

import structlog

from sandyard.clock import Clock
from sandyard_api.jobs.client import ControlPlaneError, ControlPlaneUnreachable, LeaseVoid, RunnerControlPlane
from sandyard_api.jobs.wire import (
    ClaimRequest,
    ImageJob,
    ImageProgress,
    ImageResult,
    ImageSource,
    ImageStep,
    Job,
    JobKind,
    JobProgress,
    JobResult,
)
from sandyard_api.sandboxes.states import Observed
from sandyard_runner.door_http import ask_json
from sandyard_runner.errors import DaemonUnreachable, RuntimeFailure
from sandyard_runner.image_work import ImageWork
from sandyard_runner.observe import Observer
from sandyard_runner.registry import Registry
from sandyard_runner.runtime.contract import Runtime

FIRST_BACKOFF_SECONDS = 0.1
MAX_BACKOFF_SECONDS = 5.0
FINISH_SECONDS = 120.0
"""A result that cannot be told for this long is dropped; the job comes again, and is idempotent."""

AnyJob = Job | ImageJob
AnyResult = JobResult | ImageResult

log = structlog.get_logger(__name__)


class Backoff:
    """Growing pauses between attempts, from a tenth of a second to five."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seconds = FIRST_BACKOFF_SECONDS

    async def pause(self) -> None:
        """Wait, each time twice as long."""
        await self._clock.sleep(self._seconds)
        self._seconds = min(self._seconds * 2, MAX_BACKOFF_SECONDS)

    def reset(self) -> None:
        """The last attempt went well."""
        self._seconds = FIRST_BACKOFF_SECONDS


class _Failed(Exception):
    """A job's end that is not `error`, in words for the user."""

    def __init__(self, observed: Observed, failure: RuntimeFailure) -> None:
        super().__init__(failure.message)
        self.observed = observed
        self.failure = failure


class JobLoop:
    """Claims and does jobs, at the most `max_parallel` at a time and one at a time per sandbox or snapshot."""

    def __init__(
        self,
        *,
        runner_id: str,
        runtime: Runtime,
        control_plane: RunnerControlPlane,
        registry: Registry,
        observer: Observer,
        images: ImageWork,
        clock: Clock,
        max_parallel: int,
    ) -> None:
        self._runner_id = runner_id
        self._runtime = runtime
        self._control_plane = control_plane
        self._registry = registry
        self._observer = observer
        self._images = images
        self._clock = clock
        self._max_parallel = max_parallel
        self._working: dict[str, asyncio.Task[None]] = {}
        self._free = asyncio.Event()
        self._ended_jobs = 0
        self._last_ended: dict[str, int] = {}
        self._actions: Mapping[JobKind, Callable[[Job], Awaitable[JobResult]]] = {
            JobKind.CREATE: self._create,
            JobKind.START: self._start,
            JobKind.STOP: self._stop,
            JobKind.DESTROY: self._destroy,
        }

    def mark(self) -> int:
        """A point in the order of jobs, for `touched_since`."""
        return self._ended_jobs

    def touched_since(self, sandbox_id: str, mark: int) -> bool:
        """Whether a job of that sandbox is being done here now, or ended after `mark` was taken."""
        return sandbox_id in self._working or self._last_ended.get(sandbox_id, -1) >= mark

    def forget_except(self, sandbox_ids: Collection[str]) -> None:
        """Drop what is remembered of sandboxes that do not exist any more."""
        self._last_ended = {key: order for key, order in self._last_ended.items() if key in sandbox_ids}

    async def run(self) -> None:
        """Claim and start jobs until cancelled; then the work under way is cancelled too."""
        backoff = Backoff(self._clock)
        try:
            while True:
                free = self._max_parallel - len(self._working)
                if free <= 0:
                    self._free.clear()
                    await self._free.wait()
                    continue
                try:
                    jobs = await self._control_plane.claim(ClaimRequest(self._runner_id, limit=free))
                except ControlPlaneError as error:
                    log.warning("claim_failed", reason=str(error))
                    await backoff.pause()
                    continue
                backoff.reset()
                for job in jobs:
                    self._take(job)
        finally:
            tasks = list(self._working.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _take(self, job: AnyJob) -> None:
        key = _key(job)
        earlier = self._working.get(key)
        task = asyncio.create_task(self._work_after(earlier, job), name=f"{_title(job)} {key}")
        self._working[key] = task
        task.add_done_callback(lambda done: self._release(key, done))

    def _release(self, key: str, done: asyncio.Task[None]) -> None:
        if self._working.get(key) is done:
            del self._working[key]
        self._last_ended[key] = self._ended_jobs
        self._ended_jobs += 1
        self._free.set()
        if not done.cancelled() and (error := done.exception()) is not None:
            log.error("job_broke", subject_id=key, exc_info=error)

    async def _work_after(self, earlier: asyncio.Task[None] | None, job: AnyJob) -> None:
        if earlier is not None:
            # A second job of a sandbox is only handed out when the lease of the first is void.
            earlier.cancel()
            await asyncio.gather(earlier, return_exceptions=True)
        subject = "snapshot_id" if isinstance(job, ImageJob) else "sandbox_id"
        with structlog.contextvars.bound_contextvars(**{subject: _key(job)}, job_id=job.id):
            await self._work(job)

    async def _work(self, job: AnyJob) -> None:
        started = self._clock.monotonic()
        action = asyncio.create_task(self._act(job))
        lease = asyncio.create_task(self._keep_lease(job))
        try:
            await asyncio.wait((action, lease), return_when=asyncio.FIRST_COMPLETED)
            if not action.done():
                raise LeaseVoid(job.id)
            result = action.result()
        except LeaseVoid:
            log.info("job_dropped", kind=_title(job))  # somebody else decides now
            return
        finally:
            for task in (action, lease):
                task.cancel()
            await asyncio.gather(action, lease, return_exceptions=True)
        await self._finish(job, result)
        seconds = round(self._clock.monotonic() - started, 3)
        log.info("job_done", kind=_title(job), ok=result.ok, reason=result.reason, seconds=seconds)

    async def _act(self, job: AnyJob) -> AnyResult:
        try:
            if isinstance(job, ImageJob):
                return await self._prepare_image(job)
            return await self._actions[job.kind](job)
        except _Failed as failed:
            return _failure(job, failed.observed, failed.failure)
        except RuntimeFailure as failure:
            return _failure(job, Observed.ERROR, failure)
        except LeaseVoid:
            raise
        except Exception as error:  # a loop that serves every sandbox must survive one job
            log.exception("job_broke", kind=_title(job))
            reason = f"the runner could not do this: {type(error).__name__}: {error}"
            return _failure(job, Observed.ERROR, RuntimeFailure(reason))

    async def _create(self, job: Job) -> JobResult:
        spec = job.spec
        is_build = spec.source is not None and spec.source.dockerfile is not None
        fetching = Observed.BUILDING if is_build else Observed.PULLING
        await self._progress(job, fetching if spec.image is not None else Observed.CREATING)
        await self._fetch_image(job)
        if spec.image is not None:
            await self._progress(job, Observed.CREATING)
        await self._runtime.create(spec)
        return await self._start(job)

    async def _fetch_image(self, job: Job) -> None:
        spec = job.spec
        try:
            await self._images.prepare(spec.sandbox_id, spec.source or ImageSource(spec.image, spec.organization_id))
        except RuntimeFailure as failure:
            observed = Observed.ERROR if spec.image is None else Observed.BUILD_FAILED
            raise _Failed(observed, failure) from failure

    async def _prepare_image(self, job: ImageJob) -> ImageResult:
        step = ImageStep.BUILDING if job.source.dockerfile is not None else ImageStep.PULLING
        with contextlib.suppress(ControlPlaneUnreachable):
            await self._control_plane.progress_image(job.id, ImageProgress(job.lease, step))
        try:
            facts = await self._images.prepare(job.id, job.source)
        except RuntimeFailure as failure:
            return ImageResult(job.lease, ok=False, reason=failure.message)
        return ImageResult(job.lease, ok=True, size_bytes=facts.size_bytes, entrypoint=tuple(facts.entrypoint) or None)

    async def _start(self, job: Job) -> JobResult:
        spec = job.spec
        await self._progress(job, Observed.STARTING)
        await self._runtime.start(spec)
        self._registry.add(spec.sandbox_id, spec.door_secret)
        self._observer.watch(spec.sandbox_id)
        version = await self._initialize(spec.sandbox_id)
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
        return JobResult(job.lease, ok=True, observed=Observed.DESTROYED)

    async def _initialize(self, sandbox_id: str) -> str | None:
        """Let the daemon run user code: the network's rules stand since `start` returned. Gives its version.

        Raises `DaemonUnreachable`.
        """
        door = self._registry.find_door(sandbox_id)
        if door is None or not door.path.exists():
            return None  # `start` waits for the door; only the memory runtime has none
        status, answer = await ask_json(door, "/init", json_body={})
        if status != HTTPStatus.OK:
            raise DaemonUnreachable(f"the daemon refused to begin: {answer.get('message', status)}")
        _, health = await ask_json(door, "/_daemon/health")
        return str(health["version"]) if "version" in health else None

    async def _progress(self, job: Job, observed: Observed) -> None:
        """Tell how far the work has come. An unreachable control plane does not stop it; a void lease does."""
        with contextlib.suppress(ControlPlaneUnreachable):
            await self._control_plane.progress(job.id, JobProgress(job.lease, observed))

    async def _keep_lease(self, job: AnyJob) -> None:
        """Extend the lease again and again; return when it is void."""
        while True:
            await self._clock.sleep(job.lease_seconds / 3)
            try:
                if isinstance(job, ImageJob):
                    await self._control_plane.progress_image(job.id, ImageProgress(job.lease))
                else:
                    await self._control_plane.progress(job.id, JobProgress(job.lease))
            except LeaseVoid:
                return
            except ControlPlaneError as error:
                log.warning("lease_not_extended", reason=str(error))

    async def _finish(self, job: AnyJob, result: AnyResult) -> None:
        backoff = Backoff(self._clock)
        deadline = self._clock.monotonic() + FINISH_SECONDS
        while self._clock.monotonic() < deadline:
            try:
                if isinstance(result, ImageResult):
                    await self._control_plane.finish_image(job.id, result)
                else:
                    await self._control_plane.finish(job.id, result)
                return
            except LeaseVoid:
                log.info("result_not_wanted", kind=_title(job))
                return
            except ControlPlaneError as error:
                log.warning("finish_failed", reason=str(error))
                await backoff.pause()


def _key(job: AnyJob) -> str:
    """What only one job is done for at a time."""
    return job.id if isinstance(job, ImageJob) else job.spec.sandbox_id


def _title(job: AnyJob) -> str:
    return "image" if isinstance(job, ImageJob) else job.kind.value


def _failure(job: AnyJob, observed: Observed, failure: RuntimeFailure) -> AnyResult:
    if isinstance(job, ImageJob):
        return ImageResult(job.lease, ok=False, reason=failure.message)
    return JobResult(job.lease, ok=False, observed=observed, reason=failure.message, recoverable=failure.recoverable)
