"""The preview operations of the public API."""

from urllib.parse import unquote

import msgspec
from litestar import MediaType, get, post
from litestar.di import NamedDependency as Given
from litestar.params import FromPath
from litestar.response.base import ASGIResponse

from sandyard_api.access import AnyRequest, may
from sandyard_api.errors import BadRequest
from sandyard_api.jobs.wire import KeyGrant
from sandyard_api.options import ControlPlaneOptions
from sandyard_api.origins import Origin
from sandyard_api.previews.schemas import PreviewUrl, PreviewWarning, SignedPreviewUrl
from sandyard_api.previews.service import DEFAULT_SECONDS, Previews
from sandyard_api.queries import Query
from sandyard_api.routing import Slice

WRITE = [may("write:sandboxes")]
SANDBOX_ITSELF = "/sandbox/{sandbox_ref:str}"
SANDBOX = f"{SANDBOX_ITSELF}/ports/{{port:str}}"
PREVIEW = "/preview/{sandbox_ref:str}"


@get(f"{SANDBOX}/preview-url")
async def preview_url(
    request: AnyRequest,
    previews: Given[Previews],
    grant: Given[KeyGrant],
    origin: Given[Origin],
    key: Given[str],
    port: FromPath[str],
) -> PreviewUrl:
    """getPortPreviewUrl"""
    number, as_path = _port(port), _wants_path(request)
    sandbox_id, token = await previews.token(grant.organization_id, key)
    return PreviewUrl(sandbox_id, origin.preview_url(sandbox_id, number, as_path=as_path), token)


@get(f"{SANDBOX}/signed-preview-url", guards=WRITE)
async def signed_preview_url(
    request: AnyRequest,
    previews: Given[Previews],
    grant: Given[KeyGrant],
    origin: Given[Origin],
    key: Given[str],
    port: FromPath[str],
) -> SignedPreviewUrl:
    """getSignedPortPreviewUrl"""
    number, as_path = _port(port), _wants_path(request)
    seconds = Query(request.scope["query_string"]).number("expiresInSeconds")
    seconds = DEFAULT_SECONDS if seconds is None else seconds
    sandbox_id, token = await previews.sign(grant.organization_id, key, number, seconds=seconds)
    return SignedPreviewUrl(sandbox_id, number, token, origin.signed_preview_url(token, number, as_path=as_path))


@post(f"{SANDBOX}/signed-preview-url/{{token:str}}/expire", status_code=200, guards=WRITE)
async def expire(
    previews: Given[Previews], grant: Given[KeyGrant], key: Given[str], port: FromPath[str], token: FromPath[str]
) -> ASGIResponse:
    """expireSignedPortPreviewUrl"""
    await previews.expire(grant.organization_id, key, _port(port), unquote(token))
    return ASGIResponse(status_code=200)


@get(f"{SANDBOX_ITSELF}/signing-key", media_type=MediaType.TEXT)
async def signing_key(previews: Given[Previews], grant: Given[KeyGrant], key: Given[str]) -> str:
    """getSandboxSigningKey"""
    return await previews.signing_key(grant.organization_id, key)


@post(f"{SANDBOX_ITSELF}/signing-key/rotate", status_code=200, guards=WRITE, media_type=MediaType.TEXT)
async def rotate_signing_key(previews: Given[Previews], grant: Given[KeyGrant], key: Given[str]) -> str:
    """rotateSigningKey"""
    return await previews.signing_key(grant.organization_id, key, rotate=True)


@get(f"{PREVIEW}/signing-key", media_type=MediaType.TEXT)
async def signing_key_for_proxies(previews: Given[Previews], grant: Given[KeyGrant], key: Given[str]) -> str:
    """getSigningKey"""
    return await previews.signing_key(grant.organization_id, key)


@get(f"{PREVIEW}/public")
async def is_public(previews: Given[Previews], grant: Given[KeyGrant], key: Given[str]) -> bool:
    """isSandboxPublic"""
    return await previews.is_public(grant.organization_id, key)


@get(f"{PREVIEW}/access")
async def has_access(previews: Given[Previews], grant: Given[KeyGrant], key: Given[str]) -> bool:
    """hasSandboxAccess"""
    await previews.is_public(grant.organization_id, key)
    return True


@get(f"{PREVIEW}/validate/{{token:str}}")
async def is_valid_token(
    previews: Given[Previews], grant: Given[KeyGrant], key: Given[str], token: FromPath[str]
) -> bool:
    """isValidAuthToken"""
    return await previews.is_token(grant.organization_id, key, unquote(token))


@get(f"{PREVIEW}/preview-warning")
async def is_warning_enabled(
    previews: Given[Previews], grant: Given[KeyGrant], key: Given[str], options: Given[ControlPlaneOptions]
) -> PreviewWarning:
    """isPreviewWarningEnabled"""
    await previews.is_public(grant.organization_id, key)
    return PreviewWarning(options.preview_warning)


@get("/preview/{token:str}/{port:str}/sandbox-id")
async def sandbox_of(
    previews: Given[Previews], grant: Given[KeyGrant], token: FromPath[str], port: FromPath[str]
) -> ASGIResponse:
    """getSandboxIdFromSignedPreviewUrlToken"""
    sandbox_id = await previews.sandbox_of(grant.organization_id, unquote(token), _port(port))
    return ASGIResponse(body=msgspec.json.encode(sandbox_id), media_type="application/json")


def _port(text: str) -> int:
    """Raises `BadRequest`."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
    if not 1 <= number <= 65535:
        raise BadRequest("Invalid port")
    return number


def _wants_path(request: AnyRequest) -> bool:
    """Whether the URL shall be a path of our own origin, for clients that cannot resolve preview hosts."""
    form = Query(request.scope["query_string"]).text("form")
    if form not in (None, "host", "path"):
        raise BadRequest("form must be one of: host, path")
    return form == "path"


SLICE = Slice(
    "/api",
    [
        preview_url,
        signed_preview_url,
        expire,
        signing_key,
        rotate_signing_key,
        signing_key_for_proxies,
        is_public,
        has_access,
        is_valid_token,
        is_warning_enabled,
        sandbox_of,
    ],
)
