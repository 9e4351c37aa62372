"""The SSH access operations of the public API."""

from litestar import delete, get, post
from litestar.di import NamedDependency as Given
from litestar.di import Provide

from sandyard_api.access import AnyRequest, may
from sandyard_api.errors import BadRequest
from sandyard_api.jobs.wire import KeyGrant
from sandyard_api.options import ControlPlaneOptions
from sandyard_api.origins import Origin
from sandyard_api.queries import Query
from sandyard_api.routing import Slice
from sandyard_api.sandboxes.presenting import Full, Presenter
from sandyard_api.sandboxes.routes import provide_presenter
from sandyard_api.ssh_access.schemas import SshAccessMade, SshAccessValidation
from sandyard_api.ssh_access.service import DEFAULT_MINUTES, SshAccesses

WRITE = [may("write:sandboxes")]
ACCESS = "/{sandbox_ref:str}/ssh-access"


@post(ACCESS, status_code=200, guards=WRITE)
async def create(
    request: AnyRequest,
    ssh_accesses: Given[SshAccesses],
    grant: Given[KeyGrant],
    origin: Given[Origin],
    options: Given[ControlPlaneOptions],
    key: Given[str],
) -> SshAccessMade:
    """createSshAccess"""
    if options.ssh_port is None:
        raise BadRequest("the SSH gateway of this installation is off: SANDYARD_SSH_PORT gives it a port")
    minutes = Query(request.scope["query_string"]).number("expiresInMinutes")
    made = await ssh_accesses.create(
        grant.organization_id, key, minutes=DEFAULT_MINUTES if minutes is None else minutes
    )
    return SshAccessMade(
        made.id,
        made.sandbox_id,
        made.token,
        made.expires_at,
        made.created_at,
        made.created_at,
        origin.ssh_command(options.ssh_port, made.token),
    )


@delete(ACCESS, status_code=200, guards=WRITE)
async def revoke(
    request: AnyRequest,
    ssh_accesses: Given[SshAccesses],
    grant: Given[KeyGrant],
    present: Given[Presenter],
    key: Given[str],
) -> Full:
    """revokeSshAccess"""
    token = Query(request.scope["query_string"]).text("token")
    return present.full(await ssh_accesses.revoke(grant.organization_id, key, token))


@get("/ssh-access/validate")
async def validate(
    request: AnyRequest, ssh_accesses: Given[SshAccesses], grant: Given[KeyGrant]
) -> SshAccessValidation:
    """validateSshAccess"""
    token = Query(request.scope["query_string"]).text("token")
    if token is None:
        raise BadRequest("token should not be empty")
    sandbox_id = await ssh_accesses.sandbox_of(grant.organization_id, token)
    return SshAccessValidation(sandbox_id is not None, sandbox_id or "")


SLICE = Slice(
    "/api/sandbox",
    [create, revoke, validate],
    dependencies={"present": Provide(provide_presenter, sync_to_thread=False)},
)
