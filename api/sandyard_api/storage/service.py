"""Build contexts as the rest of the control plane sees them, and the credentials for bringing them in."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from sandyard.clock import Clock
from sandyard.ids import IdSource
from sandyard_api.errors import BadRequest, NotFound, Unavailable
from sandyard_api.storage.credentials import StorageCredentials, StorageKeys
from sandyard_api.storage.external import ExternalStorage
from sandyard_api.storage.files import SEGMENT, ObjectFiles

BUCKET = "sandyard-contexts"
REGION = "us-east-1"
"""A name that every S3 client takes."""
READ_BYTES = 1 << 18
NOT_FOUND = "Build context {} was not found in the object storage"
NOT_CONFIGURED = "Object storage is not configured"


class Contexts:
    """The contexts that clients uploaded: to an `external` storage where there is one, else to `files`.

    `files` is `None` where this process has no place for them.
    """

    def __init__(
        self,
        files: ObjectFiles | None,
        external: ExternalStorage | None,
        keys: StorageKeys,
        clock: Clock,
        ids: IdSource,
    ) -> None:
        self.files = None if external else files
        self.external = external
        self.keys = keys
        self._clock = clock
        self._ids = ids

    async def issue(self, organization_id: str) -> StorageCredentials:
        """Credentials for uploading, for an hour where they are ours or a role's. Raises `Unavailable`."""
        if self.external is not None:
            await self.external.check(organization_id)  # said here, and not by an SDK in the middle of an upload
            return await self.external.credentials(organization_id)
        if self.files is None:
            raise Unavailable(NOT_CONFIGURED)
        access_key, secret = f"SY{self._ids.token(18).upper()}", self._ids.token(40)
        return self.keys.issue(organization_id, access_key, secret, self._clock.now())

    async def require(self, organization_id: str, hashes: Sequence[str]) -> None:
        """Raise `BadRequest` unless every one of the contexts is there, `Unavailable` where nobody can say."""
        if not hashes:
            return
        if self.external is not None:
            for value in hashes:
                if not SEGMENT.fullmatch(value) or not await self.external.exists(organization_id, value):
                    raise BadRequest(NOT_FOUND.format(value[:128]))
            return
        files, now = self.files, self._clock.now().timestamp()
        if files is None:
            raise BadRequest(f"Build contexts cannot be used: {NOT_CONFIGURED}")

        def missing() -> list[str]:
            for value in hashes:
                files.touch(organization_id, value, now)
            return [value for value in hashes if files.path(organization_id, value) is None]

        if absent := await asyncio.to_thread(missing):
            raise BadRequest(NOT_FOUND.format(absent[0][:128]))

    async def open(self, organization_id: str, context_hash: str) -> AsyncIterator[bytes]:
        """The content of a context. Raises `NotFound`, and `Unavailable` for an external one that cannot be had."""
        if not SEGMENT.fullmatch(organization_id) or not SEGMENT.fullmatch(context_hash):
            raise NotFound(NOT_FOUND.format(context_hash[:128]))
        if self.external is not None:
            return await self.external.open(organization_id, context_hash)
        found = None
        if self.files is not None:
            found = await asyncio.to_thread(self.files.path, organization_id, context_hash)
        if found is None:
            raise NotFound(NOT_FOUND.format(context_hash[:128]))
        return _content(found)


async def _content(path: Path) -> AsyncIterator[bytes]:
    file = await asyncio.to_thread(path.open, "rb")
    try:
        while chunk := await asyncio.to_thread(file.read, READ_BYTES):
            yield chunk
    finally:
        await asyncio.to_thread(file.close)
