"""The internal API, as `jobs.wire` has it. Bodies are decoded against the wire's own classes."""

import asyncio
from typing import TypeVar
from urllib.parse import unquote

import msgspec
from litestar import get, post
from litestar.di import NamedDependency as Given
from litestar.params import FromPath
from litestar.response import Response, Stream

from sandyard_api.access import AnyRequest
from sandyard_api.api_keys.service import ApiKeys
from sandyard_api.dispatch.bodies import Activity, Check, Claimed, Observations, Records
from sandyard_api.dispatch.service import Dispatch
from sandyard_api.errors import BadRequest
from sandyard_api.jobs.queue import ANY_RUNNER
from sandyard_api.jobs.wire import (
    ClaimRequest,
    Heartbeat,
    ImageProgress,
    ImageResult,
    JobProgress,
    JobResult,
    KeyGrant,
    Route,
    Wanted,
)
from sandyard_api.routing import Slice
from sandyard_api.runners.service import Runners
from sandyard_api.sandboxes.build_logs import BuildLogs
from sandyard_api.sessions.service import SessionRecords
from sandyard_api.snapshots.build_logs import SnapshotLogs
from sandyard_api.snapshots.work import SnapshotWork
from sandyard_api.ssh_access.service import SshAccesses
from sandyard_api.storage.service import Contexts
from sandyard_api.volumes.service import Volumes
from sandyard_api.wakeups import Wakeups

READ_BYTES = 1 << 18

Message = TypeVar("Message")


async def body_as(request: AnyRequest, kind: type[Message]) -> Message:
    """The body as a message of the wire. Raises `BadRequest` with the path of the field that is wrong."""
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except msgspec.MsgspecError as error:
        raise BadRequest(f"{kind.__name__}: {error}") from error


@post("/jobs/claim", status_code=200)
async def claim(request: AnyRequest, dispatch: Given[Dispatch], job_hints: Given[Wakeups]) -> Claimed:
    """Waits for work until the time asked for is over or the runner hangs up."""
    wanted = await body_as(request, ClaimRequest)
    with job_hints.watch(wanted.runner_id, ANY_RUNNER) as watch:
        gone = asyncio.create_task(_hung_up(request))
        gone.add_done_callback(lambda _: watch.wake())
        try:
            return await dispatch.claim(wanted, watch, gone.done)
        finally:
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)


@post("/jobs/{job_id:str}/progress", status_code=204)
async def progress(request: AnyRequest, dispatch: Given[Dispatch], job_id: FromPath[str]) -> None:
    """409 when the lease is void."""
    await dispatch.progress(job_id, await body_as(request, JobProgress))


@post("/jobs/{job_id:str}/finish", status_code=204)
async def finish(request: AnyRequest, dispatch: Given[Dispatch], job_id: FromPath[str]) -> None:
    """409 when the lease is void."""
    await dispatch.finish(job_id, await body_as(request, JobResult))


@post("/image-jobs/{job_id:str}/progress", status_code=204)
async def progress_image(request: AnyRequest, snapshot_work: Given[SnapshotWork], job_id: FromPath[str]) -> None:
    """409 when the lease is void."""
    await snapshot_work.progress(job_id, await body_as(request, ImageProgress))


@post("/image-jobs/{job_id:str}/finish", status_code=204)
async def finish_image(request: AnyRequest, snapshot_work: Given[SnapshotWork], job_id: FromPath[str]) -> None:
    """409 when the lease is void."""
    await snapshot_work.finish(job_id, await body_as(request, ImageResult))


@get("/images")
async def wanted_images(dispatch: Given[Dispatch]) -> dict[str, list[str]]:
    """Built images that something may still be made from."""
    return {"images": await dispatch.wanted_images()}


@get("/volumes")
async def wanted_volumes(volumes: Given[Volumes]) -> dict[str, list[str]]:
    """Every volume whose content is wanted."""
    return {"volumes": list(await volumes.wanted())}


@get("/contexts/{organization_id:str}/{context_hash:str}")
async def read_context(
    contexts: Given[Contexts], organization_id: FromPath[str], context_hash: FromPath[str]
) -> Response[bytes]:
    """The tar of a build context; 404 for one that is not there."""
    content = await contexts.open(unquote(organization_id), unquote(context_hash))
    return Stream(content, media_type="application/x-tar")  # type: ignore[return-value]


@post("/observations", status_code=204)
async def observe(request: AnyRequest, dispatch: Given[Dispatch]) -> None:
    """What was seen without having been asked."""
    await dispatch.observe((await body_as(request, Observations)).observations)


@get("/wanted/{runner_id:str}")
async def wanted_of(dispatch: Given[Dispatch], runner_id: FromPath[str]) -> dict[str, list[Wanted]]:
    """Everything that should be on that runner."""
    return {"sandboxes": await dispatch.wanted(runner_id)}


@post("/runners/{runner_id:str}/heartbeat", status_code=204)
async def heartbeat(request: AnyRequest, runners: Given[Runners], runner_id: FromPath[str]) -> None:
    """Registers the runner."""
    beat = await body_as(request, Heartbeat)
    await runners.beat(runner_id, url=beat.url, runtime=beat.runtime, capabilities=beat.capabilities)


@post("/sessions", status_code=204)
async def record(request: AnyRequest, sessions: Given[SessionRecords]) -> None:
    """Inserts or completes records."""
    told = await body_as(request, Records)
    await sessions.record(told.sessions, told.commands)


@post("/build-logs/{subject_id:str}", status_code=204)
async def append_build_log(
    request: AnyRequest, build_log: Given[BuildLogs], snapshot_logs: Given[SnapshotLogs], subject_id: FromPath[str]
) -> None:
    """Text, appended to the log of a sandbox or snapshot."""
    text = (await request.body()).decode(errors="replace")
    if not await build_log.append(subject_id, text):
        await snapshot_logs.append(subject_id, text)


@get("/route/{sandbox_ref:str}")
async def route(dispatch: Given[Dispatch], key: Given[str]) -> Route:
    """404 for a sandbox that is not there."""
    return await dispatch.route(key)


@get("/ssh-access/{token:str}")
async def ssh_access(ssh_accesses: Given[SshAccesses], token: FromPath[str]) -> dict[str, str]:
    """404 for a token that lets nobody in, 410 for one that has expired."""
    return {"sandbox_id": await ssh_accesses.let_in(unquote(token))}


@post("/keys/check", status_code=200)
async def check_key(request: AnyRequest, keys: Given[ApiKeys]) -> KeyGrant:
    """401 for a key that is not valid."""
    return await keys.check((await body_as(request, Check)).key)


@post("/activity", status_code=204)
async def touch(request: AnyRequest, dispatch: Given[Dispatch]) -> None:
    """When sandboxes were last used."""
    await dispatch.touch((await body_as(request, Activity)).sandboxes)


async def _hung_up(request: AnyRequest) -> None:
    """Return when the other side closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


SLICE = Slice(
    "/internal",
    [
        claim,
        progress,
        finish,
        progress_image,
        finish_image,
        wanted_images,
        wanted_volumes,
        read_context,
        observe,
        wanted_of,
        heartbeat,
        record,
        append_build_log,
        route,
        ssh_access,
        check_key,
        touch,
    ],
)
