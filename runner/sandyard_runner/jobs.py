"""The job loop: claims work under a lease, does it through the runtime, tells the result. Everything is idempotent."""

import asyncio
from collections.abc import Collection

import structlog

from sandyard.clock import Clock
from sandyard_api.jobs.client import ControlPlaneError, LeaseVoid, RunnerControlPlane
from sandyard_api.jobs.wire import (
    ClaimRequest,
    ImageJob,
    ImageProgress,
    ImageResult,
    Job,
    JobProgress,
    JobResult,
)
from sandyard_runner.actions import Actions
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
        self._control_plane = control_plane
        self._images = images
        self._clock = clock
        self._max_parallel = max_parallel
        self._working: dict[str, asyncio.Task[None]] = {}
        self._free = asyncio.Event()
        self._ended_jobs = 0
        self._last_ended: dict[str, int] = {}
        self._actions = Actions(runtime, control_plane, registry, observer, images)

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
        if isinstance(job, ImageJob):
            return await self._images.act(job)
        return await self._actions.act(job)

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
