"""The control plane's side of the runners: handing out work, and taking in what they report."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

import msgspec
import structlog
from sqlalchemy import or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from sandyard.clock import Clock
from sandyard.ids import IdSource
from sandyard.virtual_clock import machine_of, seen_at
from sandyard_api.database import Database
from sandyard_api.dispatch.bodies import Claimed
from sandyard_api.dispatch.specs import spec_of
from sandyard_api.errors import Conflict, MovedMeanwhile, NotFound
from sandyard_api.jobs import queue
from sandyard_api.jobs.models import JobRow
from sandyard_api.jobs.wire import (
    ClaimRequest,
    ImageSource,
    Job,
    JobKind,
    JobProgress,
    JobResult,
    Observation,
    Resources,
    Route,
    SandboxSpec,
    Wanted,
)
from sandyard_api.previews.service import valid
from sandyard_api.runners.service import Runners
from sandyard_api.sandboxes import moves
from sandyard_api.sandboxes.announcing import Announcer
from sandyard_api.sandboxes.linking import linked_to
from sandyard_api.sandboxes.models import Sandbox
from sandyard_api.sandboxes.moves import Move
from sandyard_api.sandboxes.states import SHOWN, Desired, Observed
from sandyard_api.sealing.service import Seal, fingerprint
from sandyard_api.secrets.service import Secrets
from sandyard_api.snapshots.models import Snapshot
from sandyard_api.snapshots.work import SnapshotWork
from sandyard_api.wakeups import Watch

MAX_CLAIM = 32
RECHECK_SECONDS = 5.0
"""A hint may get lost, and a lease may run out without one; then work is found that late."""
ATTEMPTS = 5
CAUSES = {
    JobKind.CREATE: "created by the runner",
    JobKind.START: "started by the runner",
    JobKind.STOP: "stopped by the runner",
    JobKind.DESTROY: "removed by the runner",
    JobKind.PAUSE: "paused by the runner",
    JobKind.RESUME: "resumed by the runner",
    JobKind.RESIZE: "resized by the runner",
    JobKind.COMMIT: "kept as an image by the runner",
    JobKind.ARCHIVE: "archived by the runner",
    JobKind.RESTORE: "restored by the runner",
    JobKind.FORK: "forked by the runner",
    JobKind.NETWORK: "network rules applied by the runner",
    JobKind.RECOVER: "recovered by the runner",
}

Answer = TypeVar("Answer")
log = structlog.get_logger()


class Dispatch:
    """Jobs, observations and routes. Everything a runner says is guarded: by its lease, or by the row it was about."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        ids: IdSource,
        *,
        seal: Seal,
        runners: Runners,
        announcer: Announcer,
        snapshot_work: SnapshotWork,
        secrets: Secrets,
        lease_seconds: float,
    ) -> None:
        self._database = database
        self._clock = clock
        self._machine = machine_of(clock)
        self._ids = ids
        self._seal = seal
        self._runners = runners
        self._announcer = announcer
        self._snapshot_work = snapshot_work
        self._secrets = secrets
        self._lease_seconds = lease_seconds

    async def claim(self, request: ClaimRequest, watch: Watch, is_gone: Callable[[], bool]) -> Claimed:
        """Jobs for that runner, waiting for the first one; nothing is claimed for a runner that hung up."""
        self._runners.note_at_work()
        deadline = self._clock.monotonic() + request.wait_seconds
        while not is_gone():
            claimed = await self._claim_now(request)
            if claimed.jobs or claimed.image_jobs:
                return claimed
            left = deadline - self._clock.monotonic()
            if left <= 0:
                break
            await watch.wait(min(left, RECHECK_SECONDS))
        return Claimed()

    async def progress(self, job_id: str, progress: JobProgress) -> None:
        """Extend a lease and note how far the work came. Raises `Conflict` when the lease is void."""

        async def apply() -> Move | None:
            now = self._clock.now()
            async with self._database.transaction() as db:
                until = self._machine.now() + timedelta(seconds=self._lease_seconds)
                job = await queue.extend(db, job_id, progress.lease, until=until)
                if job is None:
                    raise _void(job_id)
                if progress.observed is None:
                    return None
                row = await db.get_one(Sandbox, job.sandbox_id)
                cause = f"the runner is at it: {job.kind.value}"
                return await moves.sight(db, row, progress.observed, cause=cause, at=now, asked_for=True)

        await self._announcer.moved(await _repeat(apply))

    async def finish(self, job_id: str, result: JobResult) -> None:
        """Close a job with its result. Raises `Conflict` when the lease is void."""

        async def apply() -> tuple[list[Move], Snapshot | None, JobKind, str]:
            now = self._clock.now()
            async with self._database.transaction() as db:
                job = await queue.end(db, job_id, result.lease, at=now, ok=result.ok, reason=result.reason)
                if job is None:
                    raise _void(job_id)
                row = await db.get_one(Sandbox, job.sandbox_id)
                cause = result.reason or CAUSES[job.kind]
                values = _values_of(job, row, result, cause)
                seen = await moves.sight(db, row, result.observed, cause=cause, at=now, asked_for=True, **values)
                settled = await moves.settle(
                    db, seen.row if seen else row, cause=cause, at=now, **({} if seen else values)
                )
                made = None
                if job.kind is JobKind.COMMIT and job.image is not None:
                    made = await self._snapshot_work.end_from_sandbox(db, job.image, ok=result.ok, reason=cause)
                return [move for move in (seen, settled) if move is not None], made, job.kind, row.id

        done, made, kind, sandbox_id = await _repeat(apply)
        await self._snapshot_work.tell(made)
        await self._announcer.moved(*done)
        if kind is JobKind.NETWORK:
            await self._announcer.progressed(sandbox_id)  # somebody waits for it, and no move tells

    async def observe(self, observations: Sequence[Observation]) -> None:
        """Take in what was seen without having been asked. While a job is open, its result will tell instead."""
        for observation in observations:

            async def apply(seen: Observation = observation) -> Move | None:
                async with self._database.transaction() as db:
                    row = await db.get(Sandbox, seen.sandbox_id)
                    if row is not None and seen.is_note:
                        moves.record(db, row, cause=seen.reason, at=self._clock.now())
                        return None
                    if row is None or await queue.with_open_job(db, [seen.sandbox_id]):
                        return None
                    return await moves.sight(
                        db, row, seen.observed, cause=seen.reason, at=self._clock.now(), asked_for=False
                    )

            await self._announcer.moved(await _repeat(apply))

    async def wanted(self, runner_id: str) -> list[Wanted]:
        """Everything that should be on that runner."""
        async with self._database.reading() as db:
            rows = (
                await db.scalars(
                    select(Sandbox).where(Sandbox.runner_id == runner_id, Sandbox.observed != Observed.DESTROYED)
                )
            ).all()
            busy = await queue.with_open_job(db, [row.id for row in rows])
            return [Wanted(await self._spec(db, row), row.desired, row.observed, row.id in busy) for row in rows]

    async def route(self, key: str) -> Route:
        """How to reach a sandbox by id, name, preview token or a signed preview's token. Raises `NotFound`."""
        async with self._database.reading() as db:
            signed = await valid(db, key, self._clock)
            row = await _named(db, key if signed is None else signed.sandbox_id)
            url = await self._runners.url(db, row.runner_id)
        return Route(
            sandbox_id=row.id,
            organization_id=row.organization_id,
            state=SHOWN[row.observed, row.desired].value,
            door_secret=self._seal.open(row.door_secret_sealed),
            preview_token=self._seal.open(row.preview_token_sealed),
            public=row.public,
            runner_url=url,
            told_at=self._clock.now(),
            signed_port=signed.port if signed else None,
            signed_until=signed.expires_at if signed else None,
            signing_key=self._seal.open(row.signing_key_sealed) if row.signing_key_sealed else "",
            name=row.name,
            labels=row.labels,
        )

    async def touch(self, activity: dict[str, datetime]) -> None:
        """Note when sandboxes were last used; never moves one back, and not into the future."""
        async with self._database.transaction() as db:
            for sandbox_id, told in activity.items():
                at = seen_at(self._clock, told)
                await db.execute(
                    update(Sandbox)
                    .where(Sandbox.id == sandbox_id, Sandbox.last_activity_at < at)
                    .values(last_activity_at=at)
                )

    async def wanted_images(self) -> list[str]:
        """Every built image that something may still be made from: what is in no list a runner may remove.

        Sandboxes that are gone count until their record goes, so that a build that is asked for again soon is there.
        """
        async with self._database.reading() as db:
            of_snapshots = await self._snapshot_work.wanted_images(db)
            of_sandboxes = await db.scalars(select(Sandbox.image).where(Sandbox.image.is_not(None)).distinct())
            return sorted({*of_snapshots, *(image for image in of_sandboxes if image is not None)})

    async def _claim_now(self, request: ClaimRequest) -> Claimed:
        limit = max(1, min(request.limit, MAX_CLAIM))
        async with self._database.transaction() as db:
            rows = await queue.claim(
                db,
                request.runner_id,
                lease=self._ids.token(),
                now=self._machine.now(),
                lease_seconds=self._lease_seconds,
                limit=limit,
            )
            jobs = []
            for row in rows:
                sandbox = await db.get_one(Sandbox, row.sandbox_id)
                if sandbox.runner_id is None:
                    sandbox.runner_id = request.runner_id
                source = await self._source(db, row.kind, sandbox)
                spec = await self._spec(db, sandbox, source)
                jobs.append(self._job(row, msgspec.structs.replace(spec, link=await self._link(db, sandbox))))
            images = await self._snapshot_work.claim(db, request.runner_id, limit=limit - len(jobs))
        return Claimed(jobs, images)

    async def _source(self, db: AsyncSession, kind: JobKind, row: Sandbox) -> ImageSource | None:
        """How its image is to be had, for the kinds of job that may need to know."""
        if kind not in (JobKind.CREATE, JobKind.RECOVER):
            return None
        snapshot = await db.get(Snapshot, row.snapshot_id) if row.snapshot_id is not None else None
        if snapshot is not None:
            return await self._snapshot_work.source(db, snapshot)
        return await self._snapshot_work.source_of(
            db, row.organization_id, row.image, dockerfile=row.dockerfile, context_hashes=row.context_hashes
        )

    async def _link(self, db: AsyncSession, row: Sandbox) -> str | None:
        """Whose network of linked sandboxes it is in: its owner's, its own, or none."""
        if row.linked_sandbox_id is not None:
            return row.linked_sandbox_id
        return row.id if await linked_to(db, row.id) else None

    def _job(self, row: JobRow, spec: SandboxSpec) -> Job:
        return Job(
            id=row.id,
            kind=row.kind,
            lease=row.lease or "",
            lease_seconds=self._lease_seconds,
            spec=spec,
            force=row.force,
            image=row.image,
            source_id=row.source_id,
            resources=Resources(**row.resources) if row.resources else None,
            stay_stopped=row.stay_stopped,
        )

    async def _spec(self, db: AsyncSession, row: Sandbox, source: ImageSource | None = None) -> SandboxSpec:
        secrets = await self._secrets.grants(db, row.secrets)
        outbound = self._seal.open(row.outbound_proxy_sealed) if row.outbound_proxy_sealed else None
        return spec_of(
            row,
            door_secret=self._seal.open(row.door_secret_sealed),
            secrets=secrets,
            outbound_proxy_url=outbound,
            source=source,
        )


def _values_of(job: JobRow, row: Sandbox, result: JobResult, cause: str) -> dict[str, Any]:
    """What a finished job writes beside the state."""
    values: dict[str, Any] = {"recoverable": result.recoverable}
    if row.desired is not Desired.DESTROYED:
        values["error_reason"] = None if result.ok else cause
    if result.daemon_version is not None:
        values["daemon_version"] = result.daemon_version
    if result.ok and job.kind is JobKind.ARCHIVE:
        values["archive_image"] = job.image
    if result.ok and job.kind is JobKind.RESIZE and job.resources:
        values |= {"cpu": job.resources["cpu"], "memory_gib": job.resources["memory_gib"]}
        values["disk_gib"] = job.resources["disk_gib"]
    return values


def _void(job_id: str) -> Conflict:
    return Conflict(f"the lease of job {job_id} is void")


async def _repeat(work: Callable[[], Awaitable[Answer]]) -> Answer:
    """Do it again when somebody else was quicker: a runner's word must not get lost to a race."""
    for _ in range(ATTEMPTS - 1):
        try:
            return await work()
        except MovedMeanwhile:
            log.info("row_moved_meanwhile")
    return await work()


async def _named(db: AsyncSession, key: str) -> Sandbox:
    """By id, preview token or name, in this order: a name must not hide a token. Raises `NotFound`."""
    found = await db.scalars(
        select(Sandbox).where(
            Sandbox.observed != Observed.DESTROYED,
            Sandbox.warm_pool_id.is_(None),
            or_(
                Sandbox.id == key,
                Sandbox.preview_token_hash == fingerprint(key),
                (Sandbox.name == key) & (Sandbox.desired != Desired.DESTROYED),
            ),
        )
    )
    rows = sorted(found.all(), key=lambda row: (row.id != key, row.name == key))
    if not rows:
        raise NotFound("no such route")
    return rows[0]
