"""Small doubles for the control plane's tests: a runner that does what a script says, and nothing real."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

from sandyard_api.jobs.client import LeaseVoid, RunnerControlPlane
from sandyard_api.jobs.wire import (
    ClaimRequest,
    Heartbeat,
    ImageJob,
    ImageProgress,
    ImageResult,
    ImageStep,
    Job,
    JobKind,
    JobProgress,
    JobResult,
)
from sandyard_api.sandboxes.states import Observed

RUNNER_ID = "runner-1"

Play = Callable[[Job], Sequence[JobProgress | JobResult]]
PlayImage = Callable[[ImageJob], Sequence[ImageProgress | ImageResult | str]]
"""What is reported of an image; text goes to the build log."""

RESULTS = {
    JobKind.COMMIT: Observed.STARTED,
    JobKind.CREATE: Observed.STARTED,
    JobKind.START: Observed.STARTED,
    JobKind.STOP: Observed.STOPPED,
    JobKind.DESTROY: Observed.DESTROYED,
    JobKind.PAUSE: Observed.PAUSED,
    JobKind.RESUME: Observed.STARTED,
    JobKind.ARCHIVE: Observed.ARCHIVED,
    JobKind.RESTORE: Observed.STARTED,
    JobKind.FORK: Observed.STARTED,
    JobKind.NETWORK: Observed.STARTED,
}
"""Of the kinds that lead to one state; what a resize or commit comes back to, its script says."""


def well(job: Job) -> Sequence[JobProgress | JobResult]:
    """Everything works at once."""
    if job.kind is JobKind.RECOVER:
        seen = Observed.STOPPED if job.stay_stopped else Observed.STARTED
        return [JobResult(job.lease, ok=True, observed=seen, daemon_version="test")]
    return [JobResult(job.lease, ok=True, observed=RESULTS[job.kind], daemon_version="test")]


def pulling_first(job: Job) -> Sequence[JobProgress | JobResult]:
    """Creating has all its steps."""
    if job.kind is not JobKind.CREATE:
        return well(job)
    steps = [JobProgress(job.lease, seen) for seen in (Observed.PULLING, Observed.CREATING, Observed.STARTING)]
    return [*steps, *well(job)]


def staying(seen: Observed) -> Play:
    """Work that leaves a sandbox where it was, such as a resize, ends in `seen`."""
    return lambda job: [JobResult(job.lease, ok=True, observed=seen)]


def badly(job: Job) -> Sequence[JobProgress | JobResult]:
    """Nothing works."""
    return [JobResult(job.lease, ok=False, observed=Observed.ERROR, reason=f"cannot {job.kind.value}: no space left")]


def image_well(job: ImageJob) -> Sequence[ImageProgress | ImageResult | str]:
    """The image is there at once."""
    done = ImageResult(job.lease, ok=True, size_bytes=3 << 29, entrypoint=("sleep", "infinity"))
    return [ImageProgress(job.lease, ImageStep.PULLING), "pulled\n", done]


def image_badly(job: ImageJob) -> Sequence[ImageProgress | ImageResult | str]:
    """No image comes of it."""
    reason = "cannot pull debian:12: no such host"
    return [ImageProgress(job.lease, ImageStep.PULLING), f"{reason}\n", ImageResult(job.lease, ok=False, reason=reason)]


class ScriptedRunner:
    """Claims jobs over the internal API and answers them as `play` says; keeps what it was asked."""

    def __init__(
        self, control_plane: RunnerControlPlane, runner_id: str = RUNNER_ID, *, url: str = "unix:/nowhere/runner.sock"
    ) -> None:
        self._control_plane = control_plane
        self._runner_id = runner_id
        self._url = url
        self.play: Play = well
        self.play_image: PlayImage = image_well
        self.image_jobs: list[ImageJob] = []
        self.jobs: list[Job] = []
        self.voided: list[str] = []

    async def beat(self) -> None:
        """Say that it is there."""
        beat = Heartbeat(self._url, "scripted", {"cpu": "enforced"})
        await self._control_plane.heartbeat(self._runner_id, beat)

    async def claim(self, wait_seconds: float = 0.0) -> Sequence[Job]:
        """Take jobs without answering them."""
        claimed = await self._control_plane.claim(ClaimRequest(self._runner_id, wait_seconds=wait_seconds))
        for image_job in claimed:
            if isinstance(image_job, ImageJob):
                self.image_jobs.append(image_job)
                await self.answer_image(image_job)
        jobs = [job for job in claimed if isinstance(job, Job)]
        self.jobs.extend(jobs)
        return jobs

    async def answer(self, job: Job) -> None:
        """Report what the script says."""
        try:
            for step in self.play(job):
                if isinstance(step, JobProgress):
                    await self._control_plane.progress(job.id, step)
                else:
                    await self._control_plane.finish(job.id, step)
        except LeaseVoid:
            self.voided.append(job.id)

    async def answer_image(self, job: ImageJob) -> None:
        """Report what the script for images says."""
        with suppress(LeaseVoid):
            for step in self.play_image(job):
                if isinstance(step, ImageProgress):
                    await self._control_plane.progress_image(job.id, step)
                elif isinstance(step, str):
                    await self._control_plane.append_build_log(job.id, step)
                else:
                    await self._control_plane.finish_image(job.id, step)

    async def work_once(self) -> int:
        """Answer what is there now; how many jobs that were."""
        jobs = await self.claim()
        for job in jobs:
            await self.answer(job)
        return len(jobs)

    @asynccontextmanager
    async def working(self) -> AsyncIterator["ScriptedRunner"]:
        """Work for as long as the block lasts."""
        await self.beat()

        async def loop() -> None:
            while True:
                for job in await self.claim(wait_seconds=20):
                    await self.answer(job)

        task = asyncio.create_task(loop())
        try:
            yield self
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
