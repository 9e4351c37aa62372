"""What can be asked of one sandbox beyond start, stop and delete; mounted by `routes`."""

from litestar import get, post
from litestar.di import NamedDependency as Given

from sandyard_api.access import CREATES, MOVES, RATE, AnyRequest, may
from sandyard_api.errors import BadRequest
from sandyard_api.jobs.wire import KeyGrant
from sandyard_api.queries import Query
from sandyard_api.sandboxes.lineage import Lineage
from sandyard_api.sandboxes.presenting import Full, Presenter
from sandyard_api.sandboxes.repairs import Repairs, Wish
from sandyard_api.sandboxes.service import Sandboxes
from sandyard_api.sandboxes.snapshotting import Snapshotting, read_snapshot_name
from sandyard_api.validation import Fields, parse_json

WRITE = [may("write:sandboxes")]


@post("/{sandbox_ref:str}/pause", status_code=200, guards=WRITE, opt={RATE: MOVES})
async def pause(
    sandboxes: Given[Sandboxes],
    grant: Given[KeyGrant],
    present: Given[Presenter],
    key: Given[str],
) -> Full:
    """pauseSandbox"""
    return present.full(await sandboxes.pause(grant.organization_id, key))


@post("/{sandbox_ref:str}/snapshot", status_code=200, guards=[*WRITE, may("write:snapshots")])
async def snapshot(
    request: AnyRequest,
    snapshotting: Given[Snapshotting],
    grant: Given[KeyGrant],
    present: Given[Presenter],
    key: Given[str],
) -> Full:
    """createSandboxSnapshot"""
    name = read_snapshot_name(parse_json(await request.body()))
    return present.full(await snapshotting.snapshot(grant.organization_id, key, name))


@post("/{sandbox_ref:str}/archive", status_code=200, guards=WRITE, opt={RATE: MOVES})
async def archive(
    sandboxes: Given[Sandboxes],
    grant: Given[KeyGrant],
    present: Given[Presenter],
    key: Given[str],
) -> Full:
    """archiveSandbox"""
    return present.full(await sandboxes.archive(grant.organization_id, key))


@post("/{sandbox_ref:str}/backup", status_code=200, guards=WRITE)
async def back_up(
    sandboxes: Given[Sandboxes],
    grant: Given[KeyGrant],
    present: Given[Presenter],
    key: Given[str],
) -> Full:
    """createBackup"""
    # Kept by the protocol as something that does nothing: archives are made when they are asked for.
    row = await sandboxes.get(grant.organization_id, key)
    if row.is_ephemeral:
        raise BadRequest("Ephemeral sandboxes cannot be backed up")
    return present.full(row)


@post("/{sandbox_ref:str}/recover", status_code=200, guards=WRITE, opt={RATE: MOVES})
async def recover(
    request: AnyRequest,
    repairs: Given[Repairs],
    grant: Given[KeyGrant],
    present: Given[Presenter],
    key: Given[str],
) -> Full:
    """recoverSandbox"""
    skip_start = bool(Query(request.scope["query_string"]).flag("skipStart"))
    return present.full(await repairs.recover(grant.organization_id, key, skip_start=skip_start))


@post("/{sandbox_ref:str}/resize", status_code=200, guards=WRITE, opt={RATE: MOVES})
async def resize(
    request: AnyRequest,
    repairs: Given[Repairs],
    grant: Given[KeyGrant],
    present: Given[Presenter],
    key: Given[str],
) -> Full:
    """resizeSandbox"""
    wish = Wish.read(parse_json(await request.body()))
    return present.full(await repairs.resize(grant.organization_id, key, wish))


@post("/{sandbox_ref:str}/fork", status_code=200, guards=WRITE, opt={RATE: CREATES})
async def fork(
    request: AnyRequest,
    lineage: Given[Lineage],
    grant: Given[KeyGrant],
    present: Given[Presenter],
    key: Given[str],
) -> Full:
    """forkSandbox"""
    fields = Fields(parse_json(await request.body()))
    name = fields.name("name")
    fields.check()
    return present.full(await lineage.fork(grant.organization_id, key, name or None))


@get("/{sandbox_ref:str}/forks")
async def forks(
    request: AnyRequest,
    lineage: Given[Lineage],
    grant: Given[KeyGrant],
    present: Given[Presenter],
    key: Given[str],
) -> list[Full]:
    """getSandboxForks"""
    everything = bool(Query(request.scope["query_string"]).flag("includeDestroyed"))
    rows = await lineage.forks(grant.organization_id, key, include_destroyed=everything)
    return [present.full(row) for row in rows]


@get("/{sandbox_ref:str}/parent")
async def parent(
    lineage: Given[Lineage],
    grant: Given[KeyGrant],
    present: Given[Presenter],
    key: Given[str],
) -> Full:
    """getSandboxParent"""
    return present.full(await lineage.parent(grant.organization_id, key))


@get("/{sandbox_ref:str}/ancestors")
async def ancestors(
    lineage: Given[Lineage],
    grant: Given[KeyGrant],
    present: Given[Presenter],
    key: Given[str],
) -> list[Full]:
    """getSandboxAncestors"""
    return [present.full(row) for row in await lineage.ancestors(grant.organization_id, key)]


HANDLERS = (pause, snapshot, archive, back_up, recover, resize, fork, forks, parent, ancestors)
