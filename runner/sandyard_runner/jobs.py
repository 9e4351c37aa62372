"""The job loop: claims work under a lease, does it through the runtime, tells the result. Everything is idempotent."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Mapping
from http import HTTPStatus

import structlog

from sandyard.clock import Clock
from sandyard_api.jobs.client import ControlPlane, ControlPlaneError, ControlPlaneUnreachable, LeaseVoid
from sandyard_api.jobs.wire import ClaimRequest, Job, JobKind, JobProgress, JobResult
from sandyard_api.sandboxes.states import Observed
from sandyard_runner.door_http import ask_json
from sandyard_runner.errors import DaemonUnreachable, ImageFailure, RuntimeFailure
from sandyard_runner.observe import Observer
from sandyard_runner.registry import Registry
from sandyard_runner.runtime.contract import Runtime

FIRST_BACKOFF_SECONDS = 0.1
MAX_BACKOFF_SECONDS = 5.0
FINISH_SECONDS = 120.0
"""A result that cannot be told for this long is dropped; the job comes again, and is idempotent."""

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
    """Claims and does jobs, at the most `max_parallel` at a time and one at a time per sandbox."""

    def __init__(
        self,
        *,
        runner_id: str,
        runtime: Runtime,
        control_plane: ControlPlane,
        registry: Registry,
        observer: Observer,
        clock: Clock,
        max_parallel: int,
    ) -> None:
        self._runner_id = runner_id
        self._runtime = runtime
        self._control_plane = control_plane
        self._registry = registry
        self._observer = observer
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

    def _take(self, job: Job) -> None:
        sandbox_id = job.spec.sandbox_id
        earlier = self._working.get(sandbox_id)
        task = asyncio.create_task(self._work_after(earlier, job), name=f"{job.kind.value} {sandbox_id}")
        self._working[sandbox_id] = task
        task.add_done_callback(lambda done: self._release(sandbox_id, done))

    def _release(self, sandbox_id: str, done: asyncio.Task[None]) -> None:
        if self._working.get(sandbox_id) is done:
            del self._working[sandbox_id]
        self._last_ended[sandbox_id] = self._ended_jobs
        self._ended_jobs += 1
        self._free.set()
        if not done.cancelled() and (error := done.exception()) is not None:
            log.error("job_broke", sandbox_id=sandbox_id, exc_info=error)

    async def _work_after(self, earlier: asyncio.Task[None] | None, job: Job) -> None:
        if earlier is not None:
            # A second job of a sandbox is only handed out when the lease of the first is void.
            earlier.cancel()
            await asyncio.gather(earlier, return_exceptions=True)
        with structlog.contextvars.bound_contextvars(sandbox_id=job.spec.sandbox_id, job_id=job.id):
            await self._work(job)

    async def _work(self, job: Job) -> None:
        started = self._clock.monotonic()
        action = asyncio.create_task(self._act(job))
        lease = asyncio.create_task(self._keep_lease(job))
        try:
            await asyncio.wait((action, lease), return_when=asyncio.FIRST_COMPLETED)
            if not action.done():
                raise LeaseVoid(job.id)
            result = action.result()
        except LeaseVoid:
            log.info("job_dropped", kind=job.kind.value)  # somebody else decides now
            return
        finally:
            for task in (action, lease):
                task.cancel()
            await asyncio.gather(action, lease, return_exceptions=True)
        await self._finish(job, result)
        seconds = round(self._clock.monotonic() - started, 3)
        log.info("job_done", kind=job.kind.value, ok=result.ok, reason=result.reason, seconds=seconds)

    async def _act(self, job: Job) -> JobResult:
        try:
            return await self._actions[job.kind](job)
        except _Failed as failed:
            return _failure(job, failed.observed, failed.failure)
        except ImageFailure as failure:
            return _failure(job, Observed.ERROR if job.spec.image is None else Observed.BUILD_FAILED, failure)
        except RuntimeFailure as failure:
            return _failure(job, Observed.ERROR, failure)
        except LeaseVoid:
            raise
        except Exception as error:  # a loop that serves every sandbox must survive one job
            log.exception("job_broke", kind=job.kind.value)
            reason = f"the runner could not do this: {type(error).__name__}: {error}"
            return JobResult(job.lease, ok=False, observed=Observed.ERROR, reason=reason)

    async def _create(self, job: Job) -> JobResult:
        spec = job.spec
        await self._progress(job, Observed.PULLING if spec.image is not None else Observed.CREATING)
        await self._fetch_image(job)
        if spec.image is not None:
            await self._progress(job, Observed.CREATING)
        await self._runtime.create(spec)
        return await self._start(job)

    async def _fetch_image(self, job: Job) -> None:
        lines: asyncio.Queue[str | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def report(line: str) -> None:
            loop.call_soon_threadsafe(lines.put_nowait, line)  # a runtime may pull in a thread

        writing = asyncio.create_task(self._write_build_log(job.spec.sandbox_id, lines))
        try:
            await self._runtime.ensure_image(job.spec.image, report)
        except RuntimeFailure as failure:
            report(failure.message)
            observed = Observed.ERROR if job.spec.image is None else Observed.BUILD_FAILED
            raise _Failed(observed, failure) from failure
        finally:
            loop.call_soon(lines.put_nowait, None)
            await writing

    async def _write_build_log(self, sandbox_id: str, lines: asyncio.Queue[str | None]) -> None:
        is_over = False
        while not is_over:
            batch = [await lines.get()]
            while not lines.empty():
                batch.append(lines.get_nowait())
            is_over = None in batch
            text = "".join(f"{line}\n" for line in batch if line is not None)
            if text:
                with contextlib.suppress(ControlPlaneError):  # progress only; the result is told apart
                    await self._control_plane.append_build_log(sandbox_id, text)

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

    async def _keep_lease(self, job: Job) -> None:
        """Extend the lease again and again; return when it is void."""
        while True:
            await self._clock.sleep(job.lease_seconds / 3)
            try:
                await self._control_plane.progress(job.id, JobProgress(job.lease))
            except LeaseVoid:
                return
            except ControlPlaneError as error:
                log.warning("lease_not_extended", reason=str(error))

    async def _finish(self, job: Job, result: JobResult) -> None:
        backoff = Backoff(self._clock)
        deadline = self._clock.monotonic() + FINISH_SECONDS
        while self._clock.monotonic() < deadline:
            try:
                await self._control_plane.finish(job.id, result)
                return
            except LeaseVoid:
                log.info("result_not_wanted", kind=job.kind.value)
                return
            except ControlPlaneError as error:
                log.warning("finish_failed", reason=str(error))
                await backoff.pause()


def _failure(job: Job, observed: Observed, failure: RuntimeFailure) -> JobResult:
    return JobResult(job.lease, ok=False, observed=observed, reason=failure.message, recoverable=failure.recoverable)
