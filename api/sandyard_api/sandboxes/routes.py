"""The sandbox operations of the public API."""

from litestar import delete, get, post, put
from litestar.di import NamedDependency as Given
from litestar.di import Provide
from litestar.params import FromPath
from litestar.response import Response, Stream
from litestar.response.base import ASGIResponse

from sandyard_api.access import CREATES, MOVES, RATE, AnyRequest, may, provide_origin
from sandyard_api.errors import BadRequest
from sandyard_api.jobs.wire import KeyGrant
from sandyard_api.options import ControlPlaneOptions
from sandyard_api.origins import Origin
from sandyard_api.queries import Query
from sandyard_api.routing import Slice
from sandyard_api.sandboxes import interval_routes, lifecycle_routes, network_routes
from sandyard_api.sandboxes.build_logs import BuildLogs
from sandyard_api.sandboxes.listing import Listing
from sandyard_api.sandboxes.presenting import Full, Presenter
from sandyard_api.sandboxes.requests import read_create
from sandyard_api.sandboxes.schemas import (
    CursorPage,
    Labels,
    NumberedPage,
    Url,
)
from sandyard_api.sandboxes.service import Sandboxes
from sandyard_api.validation import Fields, parse_json
from sandyard_api.warm_pools.claiming import WarmCreates
from sandyard_daemon.wire.versions import Caller

WRITE = [may("write:sandboxes")]
DELETE = [may("delete:sandboxes")]


@post("/", status_code=200, guards=WRITE, opt={RATE: CREATES})
async def create(
    request: AnyRequest,
    warm_creates: Given[WarmCreates],
    grant: Given[KeyGrant],
    present: Given[Presenter],
    options: Given[ControlPlaneOptions],
) -> Full:
    """createSandbox"""
    body = parse_json(await request.body())
    wanted = read_create(body, default_snapshot=options.default_snapshot, region=options.region)
    return present.full(await warm_creates.create(grant.organization_id, wanted))


@get("/")
async def list_by_cursor(
    request: AnyRequest, listing: Given[Listing], grant: Given[KeyGrant], present: Given[Presenter]
) -> CursorPage | list[Full]:
    """listSandboxes"""
    query = Query(request.scope["query_string"])
    if present.wants_bare_list:
        return [present.full(row) for row in await listing.everything(grant.organization_id, query)]
    page = await listing.by_cursor(grant.organization_id, query)
    return CursorPage([present.item(row) for row in page.rows], page.next_cursor)


@get("/paginated")
async def list_by_number(
    request: AnyRequest,
    listing: Given[Listing],
    grant: Given[KeyGrant],
    present: Given[Presenter],
) -> NumberedPage:
    """listSandboxesPaginated_deprecated"""
    page = await listing.by_number(grant.organization_id, Query(request.scope["query_string"]))
    items = [present.full(row) for row in page.rows]
    return NumberedPage(items, page.total, page.page, page.total_pages)


@get("/{sandbox_ref:str}")
async def read(
    sandboxes: Given[Sandboxes],
    grant: Given[KeyGrant],
    present: Given[Presenter],
    key: Given[str],
) -> Full:
    """getSandbox"""
    return present.full(await sandboxes.get(grant.organization_id, key))


@delete("/{sandbox_ref:str}", status_code=200, guards=DELETE, opt={RATE: MOVES})
async def destroy(
    sandboxes: Given[Sandboxes],
    grant: Given[KeyGrant],
    present: Given[Presenter],
    key: Given[str],
) -> Full:
    """deleteSandbox"""
    return present.full(await sandboxes.destroy(grant.organization_id, key))


@post("/{sandbox_ref:str}/start", status_code=200, guards=WRITE, opt={RATE: MOVES})
async def start(
    sandboxes: Given[Sandboxes],
    grant: Given[KeyGrant],
    present: Given[Presenter],
    key: Given[str],
) -> Full:
    """startSandbox"""
    return present.full(await sandboxes.start(grant.organization_id, key))


@post("/{sandbox_ref:str}/stop", status_code=200, guards=WRITE, opt={RATE: MOVES})
async def stop(
    request: AnyRequest,
    sandboxes: Given[Sandboxes],
    grant: Given[KeyGrant],
    present: Given[Presenter],
    key: Given[str],
) -> Full:
    """stopSandbox"""
    force = bool(Query(request.scope["query_string"]).flag("force"))
    return present.full(await sandboxes.stop(grant.organization_id, key, force=force))


@put("/{sandbox_ref:str}/labels", guards=WRITE)
async def replace_labels(
    request: AnyRequest,
    sandboxes: Given[Sandboxes],
    grant: Given[KeyGrant],
    key: Given[str],
) -> Labels:
    """replaceLabels"""
    fields = Fields(parse_json(await request.body()))
    labels = fields.strings("labels")
    if fields.raw("labels") is None:
        fields.complain("labels must be an object")
    fields.check()
    await sandboxes.change(grant.organization_id, key, labels=labels)
    return Labels(labels)


@post("/{sandbox_ref:str}/public/{is_public:str}", status_code=200, guards=WRITE)
async def set_public(
    sandboxes: Given[Sandboxes],
    grant: Given[KeyGrant],
    present: Given[Presenter],
    key: Given[str],
    is_public: FromPath[str],
) -> Full:
    """updatePublicStatus"""
    if is_public not in ("true", "false"):
        raise BadRequest("Validation failed (boolean string is expected)")
    row = await sandboxes.change(grant.organization_id, key, public=is_public == "true")
    return present.full(row)


@post("/{sandbox_ref:str}/last-activity", status_code=201)
async def note_activity(sandboxes: Given[Sandboxes], grant: Given[KeyGrant], key: Given[str]) -> ASGIResponse:
    """updateLastActivity"""
    await sandboxes.touch(grant.organization_id, key)
    return ASGIResponse(status_code=201)


@get("/{sandbox_ref:str}/toolbox-proxy-url")
async def toolbox_proxy_url(
    sandboxes: Given[Sandboxes],
    grant: Given[KeyGrant],
    origin: Given[Origin],
    key: Given[str],
) -> Url:
    """getToolboxProxyUrl"""
    await sandboxes.get(grant.organization_id, key)
    return Url(origin.toolbox_url)


@get("/{sandbox_ref:str}/build-logs-url")
async def build_logs_url(
    sandboxes: Given[Sandboxes],
    grant: Given[KeyGrant],
    origin: Given[Origin],
    key: Given[str],
) -> Url:
    """getBuildLogsUrl"""
    return Url(origin.build_logs_url((await sandboxes.get(grant.organization_id, key)).id))


@get("/{sandbox_ref:str}/build-logs")
async def build_logs(
    request: AnyRequest,
    sandboxes: Given[Sandboxes],
    build_log: Given[BuildLogs],
    grant: Given[KeyGrant],
    key: Given[str],
) -> Response[bytes]:
    """getBuildLogs"""
    row = await sandboxes.get(grant.organization_id, key)
    follow = bool(Query(request.scope["query_string"]).flag("follow"))
    return Stream(build_log.read(row.id, keep_on=follow), media_type="text/plain; charset=utf-8")  # type: ignore[return-value]


def provide_presenter(request: AnyRequest) -> Presenter:
    """Answers in the form that this caller can read."""
    return Presenter(provide_origin(request).toolbox_url, Caller.of(request.headers.get))


SLICE = Slice(
    "/api/sandbox",
    [
        create,
        list_by_cursor,
        list_by_number,
        read,
        destroy,
        start,
        stop,
        *lifecycle_routes.HANDLERS,
        *network_routes.HANDLERS,
        replace_labels,
        set_public,
        *interval_routes.HANDLERS,
        note_activity,
        toolbox_proxy_url,
        build_logs_url,
        build_logs,
    ],
    dependencies={"present": Provide(provide_presenter, sync_to_thread=False)},
)
