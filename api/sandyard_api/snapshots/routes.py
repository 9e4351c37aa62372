"""The snapshot operations of the public API."""

from urllib.parse import unquote

from litestar import delete, get, post
from litestar.di import NamedDependency as Given
from litestar.di import Provide
from litestar.params import FromPath
from litestar.response import Response, Stream
from litestar.response.base import ASGIResponse

from sandyard_api.access import AnyRequest, may
from sandyard_api.jobs.wire import KeyGrant
from sandyard_api.options import ControlPlaneOptions
from sandyard_api.origins import Origin
from sandyard_api.queries import Query
from sandyard_api.routing import Slice
from sandyard_api.snapshots.build_logs import SnapshotLogs
from sandyard_api.snapshots.requests import read_new_snapshot
from sandyard_api.snapshots.schemas import SnapshotDto, SnapshotPage, SnapshotUrl, snapshot_dto
from sandyard_api.snapshots.service import Snapshots
from sandyard_api.validation import parse_json

WRITE = [may("write:snapshots")]
DELETE = [may("delete:snapshots")]


@post("/", status_code=200, guards=WRITE)
async def create(
    request: AnyRequest, snapshots: Given[Snapshots], grant: Given[KeyGrant], options: Given[ControlPlaneOptions]
) -> SnapshotDto:
    """createSnapshot"""
    wanted = read_new_snapshot(parse_json(await request.body()), region=options.region)
    return snapshot_dto(await snapshots.create(grant.organization_id, wanted))


@get("/")
async def list_snapshots(request: AnyRequest, snapshots: Given[Snapshots], grant: Given[KeyGrant]) -> SnapshotPage:
    """getAllSnapshots"""
    page = await snapshots.list(grant.organization_id, Query(request.scope["query_string"]))
    return SnapshotPage([snapshot_dto(row) for row in page.rows], page.total, page.page, page.total_pages)


@get("/{snapshot_ref:str}")
async def read(snapshots: Given[Snapshots], grant: Given[KeyGrant], snapshot_key: Given[str]) -> SnapshotDto:
    """getSnapshot"""
    return snapshot_dto(await snapshots.get(grant.organization_id, snapshot_key))


@delete("/{snapshot_ref:str}", status_code=200, guards=DELETE)
async def remove(snapshots: Given[Snapshots], grant: Given[KeyGrant], snapshot_key: Given[str]) -> ASGIResponse:
    """removeSnapshot"""
    await snapshots.delete(grant.organization_id, snapshot_key)
    return ASGIResponse(status_code=200)


@post("/{snapshot_ref:str}/activate", status_code=200, guards=WRITE)
async def activate(snapshots: Given[Snapshots], grant: Given[KeyGrant], snapshot_key: Given[str]) -> SnapshotDto:
    """activateSnapshot"""
    return snapshot_dto(await snapshots.activate(grant.organization_id, snapshot_key))


@post("/{snapshot_ref:str}/deactivate", status_code=204, guards=WRITE)
async def deactivate(snapshots: Given[Snapshots], grant: Given[KeyGrant], snapshot_key: Given[str]) -> None:
    """deactivateSnapshot"""
    await snapshots.deactivate(grant.organization_id, snapshot_key)


@get("/{snapshot_ref:str}/build-logs-url")
async def build_logs_url(
    snapshots: Given[Snapshots], grant: Given[KeyGrant], origin: Given[Origin], snapshot_key: Given[str]
) -> SnapshotUrl:
    """getSnapshotBuildLogsUrl"""
    row = await snapshots.get(grant.organization_id, snapshot_key)
    return SnapshotUrl(f"{origin.url}/api/snapshots/{row.id}/build-logs")


@get("/{snapshot_ref:str}/build-logs")
async def build_logs(
    request: AnyRequest,
    snapshots: Given[Snapshots],
    snapshot_logs: Given[SnapshotLogs],
    grant: Given[KeyGrant],
    snapshot_key: Given[str],
) -> Response[bytes]:
    """getSnapshotBuildLogs"""
    row = await snapshots.get(grant.organization_id, snapshot_key)
    keep_on = bool(Query(request.scope["query_string"]).flag("follow"))
    said = snapshot_logs.read(row.id, keep_on=keep_on)
    return Stream(said, media_type="text/plain; charset=utf-8")  # type: ignore[return-value]


def provide_snapshot_key(snapshot_ref: FromPath[str]) -> str:
    """The snapshot's id or name, which may hold slashes."""
    return unquote(snapshot_ref)


SLICE = Slice(
    "/api/snapshots",
    [
        create,
        list_snapshots,
        read,
        remove,
        activate,
        deactivate,
        build_logs_url,
        build_logs,
    ],
    dependencies={"snapshot_key": Provide(provide_snapshot_key, sync_to_thread=False)},
)
