"""The secret operations of the public API."""

from litestar import delete, get, patch, post
from litestar.di import NamedDependency as Given

from sandyard_api.access import AnyRequest, may
from sandyard_api.jobs.wire import KeyGrant
from sandyard_api.queries import Query
from sandyard_api.routing import Slice
from sandyard_api.secrets.listing import page_of
from sandyard_api.secrets.requests import read_new_secret, read_secret_changes
from sandyard_api.secrets.schemas import SecretDto, SecretPage, secret_dto
from sandyard_api.secrets.service import Secrets
from sandyard_api.validation import parse_json

MANAGE = [may("manage:secrets")]


@post("/", status_code=201, guards=MANAGE)
async def create(request: AnyRequest, secrets: Given[Secrets], grant: Given[KeyGrant]) -> SecretDto:
    """createSecret"""
    wanted = read_new_secret(parse_json(await request.body()))
    return secret_dto(await secrets.create(grant.organization_id, wanted))


@get("/")
async def list_secrets(secrets: Given[Secrets], grant: Given[KeyGrant]) -> list[SecretDto]:
    """listSecrets"""
    rows = await secrets.list(grant.organization_id)
    return [secret_dto(row) for row in sorted(rows, key=lambda row: (row.created_at, row.id), reverse=True)]


@get("/paginated")
async def list_paginated(request: AnyRequest, secrets: Given[Secrets], grant: Given[KeyGrant]) -> SecretPage:
    """listSecretsPaginated"""
    return page_of(await secrets.list(grant.organization_id), Query(request.scope["query_string"]))


@get("/{item_ref:str}")
async def read(secrets: Given[Secrets], grant: Given[KeyGrant], item_id: Given[str]) -> SecretDto:
    """getSecret"""
    return secret_dto(await secrets.get(grant.organization_id, item_id))


@patch("/{item_ref:str}", guards=MANAGE)
async def change(
    request: AnyRequest, secrets: Given[Secrets], grant: Given[KeyGrant], item_id: Given[str]
) -> SecretDto:
    """updateSecret"""
    wanted = read_secret_changes(parse_json(await request.body()))
    return secret_dto(await secrets.change(grant.organization_id, item_id, wanted))


@delete("/{item_ref:str}", status_code=204, guards=MANAGE)
async def remove(secrets: Given[Secrets], grant: Given[KeyGrant], item_id: Given[str]) -> None:
    """deleteSecret"""
    await secrets.delete(grant.organization_id, item_id)


SLICE = Slice("/api/secret", [create, list_secrets, list_paginated, read, change, remove])
