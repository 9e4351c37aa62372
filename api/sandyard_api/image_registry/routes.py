"""The registry operation of the public API: where to push an image, and with what."""

from datetime import datetime

import msgspec
from litestar import get
from litestar.di import NamedDependency as Given

from sandyard_api.access import AnyRequest, may
from sandyard_api.database import Database
from sandyard_api.errors import NotFound
from sandyard_api.image_registry.service import ImageRegistry
from sandyard_api.jobs.wire import KeyGrant
from sandyard_api.options import ControlPlaneOptions
from sandyard_api.origins import DEFAULT_PORTS, Origin, split_authority
from sandyard_api.queries import Query
from sandyard_api.routing import Slice
from sandyard_api.runners.service import Runners

REGISTRY_ID = "5d3f1c1e-0b1a-4f0e-9a59-3c7d2f4e8b60"
"""There is one, and it is nobody's row."""


class RegistryPushAccess(msgspec.Struct, rename="camel"):
    """A login for pushing, and where."""

    username: str
    secret: str
    registry_url: str
    """Host and port, without a scheme: the beginning of an image's name."""
    registry_id: str
    project: str
    """The first part of the repositories' names."""
    expires_at: datetime


@get("/registry-push-access", guards=[may("write:snapshots", "write:sandboxes")])
async def push_access(
    request: AnyRequest,
    image_registry: Given[ImageRegistry],
    runners: Given[Runners],
    database: Given[Database],
    grant: Given[KeyGrant],
    origin: Given[Origin],
    options: Given[ControlPlaneOptions],
) -> RegistryPushAccess:
    """getTransientPushAccess"""
    region = Query(request.scope["query_string"]).text("regionId")
    if region is not None and region != options.region:
        raise NotFound("Region not found")
    async with database.reading() as db:  # said here, and not after the upload
        await runners.check_some(db, "images", "Images cannot be used")
    login = image_registry.issue(grant.organization_id)
    return RegistryPushAccess(
        username=login.username,
        secret=login.secret,
        registry_url=registry_url(origin),
        registry_id=REGISTRY_ID,
        project=grant.organization_id,
        expires_at=login.expires_at,
    )


def registry_url(origin: Origin) -> str:
    """How an engine on the client's machine names us in the names of images."""
    host, tail = split_authority(origin.authority)
    if host == "localhost":
        host = "127.0.0.1"  # an engine may take the name for ::1, where nobody listens
    if "." not in host and not tail:
        tail = f":{DEFAULT_PORTS[origin.scheme]}"  # a name alone would be taken for a user of Docker Hub
    return f"[{host}]{tail}" if ":" in host else host + tail


SLICE = Slice("/api/docker-registry", [push_access])
