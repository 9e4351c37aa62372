"""The object storage operation of the public API: where to upload build contexts, and with what."""

import msgspec
from litestar import get
from litestar.di import NamedDependency as Given

from sandyard_api.access import AnyRequest, may
from sandyard_api.errors import Unavailable
from sandyard_api.jobs.wire import KeyGrant
from sandyard_api.options import ControlPlaneOptions
from sandyard_api.origins import Origin, split_authority
from sandyard_api.routing import Slice
from sandyard_api.storage.service import BUCKET, REGION, Contexts

NEEDS_HTTPS = ("sdk-python", "sdk-python-async")
"""Clients whose storage library refuses plain http, whatever it is told."""


class StorageAccess(msgspec.Struct, rename="camel"):
    """Credentials for uploading, and where."""

    access_key: str
    secret: str
    session_token: str
    storage_url: str
    organization_id: str
    bucket: str
    region: str


@get("/push-access", guards=[may("write:snapshots", "write:sandboxes")])
async def push_access(
    request: AnyRequest,
    contexts: Given[Contexts],
    grant: Given[KeyGrant],
    origin: Given[Origin],
    options: Given[ControlPlaneOptions],
) -> StorageAccess:
    """getPushAccess"""
    source = request.headers.get("x-daytona-source", "")
    external = contexts.external
    if external is not None:
        check_scheme(external.options.endpoint, source)
        url, bucket, region = external.options.endpoint, external.options.bucket, external.options.region
    else:
        url, bucket, region = storage_url(origin, options.storage_https_port, source), BUCKET, REGION
    credentials = await contexts.issue(grant.organization_id)
    return StorageAccess(
        access_key=credentials.access_key,
        secret=credentials.secret,
        session_token=credentials.session_token,
        storage_url=url,
        organization_id=grant.organization_id,
        bucket=bucket,
        region=region,
    )


def check_scheme(endpoint: str, source: str) -> None:
    """Raise `Unavailable` for a client that cannot upload to an external storage over plain http."""
    if source in NEEDS_HTTPS and not endpoint.startswith("https:"):
        raise Unavailable(
            "This SDK uploads local files over https only, with a certificate that this machine trusts, and the object "
            f"storage of this installation is {endpoint} (SANDYARD_S3_ENDPOINT)"
        )


def storage_url(origin: Origin, https_port: int | None, source: str) -> str:
    """Where a client can upload. Raises `Unavailable` with what to do where it cannot."""
    host, tail = split_authority(origin.authority)
    if host == "localhost":
        host = "127.0.0.1"  # a client that puts the bucket before a name does not before an address
    if origin.scheme == "https" or source not in NEEDS_HTTPS:
        return f"{origin.scheme}://{_bracketed(host)}{tail}"
    if https_port is None:
        raise Unavailable(
            "This SDK uploads local files over https only, with a certificate that this machine trusts. "
            "Run `sandyard trust` once and start Sandyard again; `sandyard trust --undo` takes it back"
        )
    return f"https://{_bracketed(host)}:{https_port}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


SLICE = Slice("/api/object-storage", [push_access])
