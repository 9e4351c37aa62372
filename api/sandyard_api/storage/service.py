"""Build contexts as the rest of the control plane sees them, and the credentials for bringing them in."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from sandyard.clock import Clock
from sandyard.ids import IdSource
from sandyard_api.errors import BadRequest, NotFound, Unavailable
from sandyard_api.storage.credentials import StorageCredentials, StorageKeys
from sandyard_api.storage.files import ObjectFiles

BUCKET = "sandyard-contexts"
REGION = "us-east-1"
"""A name that every S3 client takes."""
NOT_CONFIGURED = "Object storage is not configured"


class Contexts:
    """The contexts that clients uploaded. `files` is `None` where this process has no place for them."""

    def __init__(self, files: ObjectFiles | None, keys: StorageKeys, clock: Clock, ids: IdSource) -> None:
        self.files = files
        self.keys = keys
        self._clock = clock
        self._ids = ids

    def issue(self, organization_id: str) -> StorageCredentials:
        """Credentials for uploading, for an hour. Raises `Unavailable`."""
        if self.files is None:
            raise Unavailable(NOT_CONFIGURED)
        access_key, secret = f"SY{self._ids.token(18).upper()}", self._ids.token(40)
        return self.keys.issue(organization_id, access_key, secret, self._clock.now())

    async def require(self, organization_id: str, hashes: Sequence[str]) -> None:
        """Raise `BadRequest` unless every one of the contexts is there."""
        if not hashes:
            return
        files = self.files
        if files is None:
            raise BadRequest(f"Build contexts cannot be used: {NOT_CONFIGURED}")

        def missing() -> list[str]:
            return [value for value in hashes if files.path(organization_id, value) is None]

        if absent := await asyncio.to_thread(missing):
            raise BadRequest(f"Build context {absent[0][:128]} was not found in the object storage")

    async def path(self, organization_id: str, context_hash: str) -> Path:
        """The file of a context. Raises `NotFound`."""
        found = None
        if self.files is not None:
            found = await asyncio.to_thread(self.files.path, organization_id, context_hash)
        if found is None:
            raise NotFound(f"Build context {context_hash[:128]} was not found in the object storage")
        return found
