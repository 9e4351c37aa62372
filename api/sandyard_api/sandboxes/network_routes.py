"""The way out of one sandbox and its secrets; mounted by `routes`."""

from litestar import post, put
from litestar.di import NamedDependency as Given

from sandyard_api.access import AnyRequest, may
from sandyard_api.database import Database
from sandyard_api.errors import BadRequest
from sandyard_api.jobs.wire import KeyGrant
from sandyard_api.sandboxes.network_requests import NetworkWish
from sandyard_api.sandboxes.networking import Networking
from sandyard_api.sandboxes.presenting import Full, Presenter
from sandyard_api.secrets.requests import read_mounts
from sandyard_api.secrets.service import Secrets
from sandyard_api.validation import Fields, parse_json

WRITE = [may("write:sandboxes")]
NOTHING_GIVEN = "At least one of networkBlockAll, networkAllowList or domainAllowList must be provided"


@post("/{sandbox_ref:str}/network-settings", status_code=200, guards=WRITE)
async def change_network(
    request: AnyRequest,
    networking: Given[Networking],
    grant: Given[KeyGrant],
    present: Given[Presenter],
    key: Given[str],
) -> Full:
    """updateNetworkSettings"""
    wish = NetworkWish.read(Fields(parse_json(await request.body())))
    if wish == NetworkWish(None, None, None):
        raise BadRequest(NOTHING_GIVEN)
    row = await networking.change(
        grant.organization_id, key, wish.columns(), cause="network settings changed by a request"
    )
    return present.full(row)


@put("/{sandbox_ref:str}/secrets", guards=WRITE)
async def replace_secrets(
    request: AnyRequest,
    networking: Given[Networking],
    secrets: Given[Secrets],
    database: Given[Database],
    grant: Given[KeyGrant],
    present: Given[Presenter],
    key: Given[str],
) -> Full:
    """updateSandboxSecrets"""
    fields = Fields(parse_json(await request.body()))
    if fields.raw("secrets") is None:
        fields.complain("secrets must be an array")
    mounts = read_mounts(fields)
    fields.check()
    async with database.reading() as db:
        resolved = await secrets.resolve(db, grant.organization_id, mounts)
    row = await networking.change(
        grant.organization_id, key, {"secrets": resolved}, cause="secrets changed by a request"
    )
    return present.full(row)


HANDLERS = (change_network, replace_secrets)
