"""A control plane that answers from a script and remembers what it was told."""

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from sandyard_api.jobs.client import ControlPlaneUnreachable, LeaseVoid, UnknownContext, UnknownRoute
from sandyard_api.jobs.wire import (
    ClaimRequest,
    CommandRecord,
    Heartbeat,
    ImageJob,
    ImageProgress,
    ImageResult,
    Job,
    JobKind,
    JobProgress,
    JobResult,
    KeyGrant,
    Observation,
    Route,
    SandboxSpec,
    SessionRecord,
    Wanted,
)
from sandyard_api.sandboxes.states import Desired, Observed

_numbers = itertools.count(1)


def a_spec(sandbox_id: str = "sandbox-1", *, secret: str = "s" * 32, image: str | None = None) -> SandboxSpec:
    return SandboxSpec(sandbox_id, "org", "a sandbox", secret, image=image)


def a_job(kind: JobKind, spec: SandboxSpec | None = None, *, lease_seconds: float = 30.0) -> Job:
    number = next(_numbers)
    return Job(f"job-{number}", kind, f"lease-{number}", lease_seconds, spec or a_spec())


class ScriptedControlPlane:
    """`ControlPlane` with jobs put in by hand. `away` makes it unreachable, `void` names jobs without a lease."""

    def __init__(self) -> None:
        self.away = False
        self.void: set[str] = set()
        self.wanted_sandboxes: list[Wanted] = []
        self.progressed: list[JobProgress] = []
        self.results: dict[str, JobResult] = {}
        self.observations: list[Observation] = []
        self.sessions: list[SessionRecord] = []
        self.commands: list[CommandRecord] = []
        self.heartbeats: list[Heartbeat] = []
        self.build_log = ""
        self.images: set[str] = set()
        self.volumes: set[str] = set()
        self.contexts: dict[str, bytes] = {}
        self.image_progressed: list[ImageProgress] = []
        self.image_results: dict[str, ImageResult] = {}
        self._jobs: asyncio.Queue[Job | ImageJob] = asyncio.Queue()
        self._changed = asyncio.Condition()

    def give(self, *jobs: Job | ImageJob) -> None:
        for job in jobs:
            self._jobs.put_nowait(job)

    async def result_of(self, job: Job) -> JobResult:
        await self.until(lambda: job.id in self.results)
        return self.results[job.id]

    async def until(self, condition: Callable[[], bool], timeout_seconds: float = 60.0) -> None:
        """Wait until something we were told makes the condition true."""
        async with asyncio.timeout(timeout_seconds), self._changed:
            await self._changed.wait_for(condition)

    async def claim(self, request: ClaimRequest) -> Sequence[Job | ImageJob]:
        await self._check()
        jobs = [await self._jobs.get()]
        while len(jobs) < request.limit and not self._jobs.empty():
            jobs.append(self._jobs.get_nowait())
        return jobs

    async def progress(self, job_id: str, progress: JobProgress) -> None:
        await self._check(job_id)
        self.progressed.append(progress)
        await self._tell()

    async def finish(self, job_id: str, result: JobResult) -> None:
        await self._check(job_id)
        self.results[job_id] = result
        await self._tell()

    async def progress_image(self, job_id: str, progress: ImageProgress) -> None:
        await self._check(job_id)
        self.image_progressed.append(progress)
        await self._tell()

    async def finish_image(self, job_id: str, result: ImageResult) -> None:
        await self._check(job_id)
        self.image_results[job_id] = result
        await self._tell()

    async def wanted_images(self) -> Sequence[str]:
        await self._check()
        return list(self.images)

    async def wanted_volumes(self) -> Sequence[str]:
        await self._check()
        return list(self.volumes)

    async def fetch_context(self, organization_id: str, context_hash: str, target: Path) -> None:
        await self._check()
        if context_hash not in self.contexts:
            raise UnknownContext(f"the build context {context_hash} is not in the object storage")
        await asyncio.to_thread(target.write_bytes, self.contexts[context_hash])

    async def observe(self, observations: Sequence[Observation]) -> None:
        await self._check()
        self.observations += observations
        await self._tell()

    async def wanted(self, runner_id: str) -> Sequence[Wanted]:
        await self._check()
        return list(self.wanted_sandboxes)

    async def heartbeat(self, runner_id: str, heartbeat: Heartbeat) -> None:
        await self._check()
        self.heartbeats.append(heartbeat)
        await self._tell()

    async def record(self, sessions: Sequence[SessionRecord], commands: Sequence[CommandRecord]) -> None:
        await self._check()
        self.sessions += sessions
        self.commands += commands
        await self._tell()

    async def append_build_log(self, sandbox_id: str, text: str) -> None:
        await self._check()
        self.build_log += text
        await self._tell()

    async def route(self, key: str) -> Route:
        raise UnknownRoute(key)

    async def ssh_access(self, token: str) -> str:
        raise NotImplementedError  # a runner never asks

    async def check_key(self, key: str) -> KeyGrant:
        raise NotImplementedError  # a runner never asks

    async def touch(self, activity: Mapping[str, datetime]) -> None:
        raise NotImplementedError  # a runner never tells

    async def _check(self, job_id: str = "") -> None:
        await asyncio.sleep(0)
        if self.away:
            raise ControlPlaneUnreachable("away")
        if job_id in self.void:
            raise LeaseVoid(job_id)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def as_wanted(
    spec: SandboxSpec,
    *,
    desired: Desired = Desired.STARTED,
    observed: Observed = Observed.STARTED,
    has_job: bool = False,
) -> Wanted:
    return Wanted(spec, desired, observed, has_job=has_job)
