"""Uploads of blobs: begun, continued, finished, and resumed where the client left off."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from sandyard.clock import Clock
from sandyard.ids import IdSource
from sandyard_api.asgi import ClientGone, Headers
from sandyard_api.image_registry.answers import RegistryError, answer
from sandyard_api.image_registry.names import parse_repository
from sandyard_api.image_registry.requests import (
    CONTENT_RANGE,
    ROOT,
    Call,
    no_such_upload,
    parse_digest,
)
from sandyard_api.image_registry.store import ImageStore
from sandyard_api.image_registry.uploads import (
    NoSuchUpload,
    RegistryFull,
    TooManyUploads,
    Upload,
    UploadBusy,
    WrongDigest,
)

WRITE_BYTES = 1 << 20

MakeRoom = Callable[[], Awaitable[None]]


class Receiving:
    """The handlers. An upload belongs to the organization, and what becomes of it is there for all its repositories."""

    def __init__(self, store: ImageStore, machine: Clock, ids: IdSource, make_room: MakeRoom) -> None:
        self._store = store
        self._machine = machine
        self._ids = ids
        self._make_room = make_room

    async def begin(self, call: Call) -> None:
        """POST: mount a blob that is there, take a whole one, or open an upload."""
        if mounted := call.argument("mount"):
            digest = parse_digest(mounted)
            if _may_mount(call) and await self._find(call, digest):
                await _created(call, digest)
                return
        digest = parse_digest(call.argument("digest")) if "digest" in call.query else ""
        upload_id = self._ids.token(32)
        await guarded(self._store.begin, call.repository.organization_id, upload_id, self._now())
        if digest:
            await self._write(call, upload_id, digest)
        else:
            await answer(call.scope, call.send, 202, headers=_progress(call, upload_id, 0))

    async def show(self, call: Call) -> None:
        """GET: how far it came."""
        upload_id = call.target.upload_id
        size = await guarded(self._store.upload_size, call.repository.organization_id, upload_id)
        await answer(call.scope, call.send, 204, headers=_progress(call, upload_id, size))

    async def carry_on(self, call: Call) -> None:
        """PATCH: the next bytes."""
        await self._write(call, call.target.upload_id, None)

    async def finish(self, call: Call) -> None:
        """PUT: the last bytes, if there are more, and the digest of all."""
        await self._write(call, call.target.upload_id, parse_digest(call.argument("digest")))

    async def cancel(self, call: Call) -> None:
        """DELETE."""
        upload = await self._open(call, call.target.upload_id)
        try:
            await asyncio.to_thread(upload.discard)
        finally:
            await asyncio.to_thread(upload.close, self._now())
        await answer(call.scope, call.send, 204)

    async def _write(self, call: Call, upload_id: str, digest: str | None) -> None:
        """Take the request's body into an upload, and make it a blob where a digest ends it."""
        upload = await self._open(call, upload_id)
        try:
            await self._take_body(call, upload)
            if digest is not None:
                organization_id = call.repository.organization_id
                await guarded(self._store.finish, upload, organization_id, digest, self._now())
        except RegistryFull as error:
            await asyncio.to_thread(upload.discard)
            raise full(self._store, error) from error
        finally:
            await asyncio.to_thread(upload.close, self._now())
        if digest is not None:
            await _created(call, digest)
        else:
            await answer(call.scope, call.send, 202, headers=_progress(call, upload_id, upload.size))

    async def _take_body(self, call: Call, upload: Upload) -> None:
        before, expected = upload.size, self._expected(call, upload)
        if expected and expected > await asyncio.to_thread(self._store.room):
            await self._make_room()
            if expected > await asyncio.to_thread(self._store.room):
                raise RegistryFull("the registry is full")
        held = bytearray()
        try:
            async for piece in call.body():
                held += piece
                if len(held) >= WRITE_BYTES:
                    await self._append(upload, held)
        except ClientGone:
            await self._append(upload, held)  # what came is there when the client comes back
            raise
        await self._append(upload, held)
        if expected is not None and upload.size - before != expected:
            await asyncio.to_thread(upload.rewind, before)
            raise RegistryError("SIZE_INVALID", f"{expected} bytes were announced, and others came")

    async def _append(self, upload: Upload, held: bytearray) -> None:
        piece = bytes(held)
        held.clear()
        try:
            await asyncio.to_thread(upload.append, piece)
        except RegistryFull:
            await self._make_room()
            await asyncio.to_thread(upload.append, piece)

    def _expected(self, call: Call, upload: Upload) -> int | None:
        """How many bytes the request says that it brings; `None` where it does not say. Raises `RegistryError`."""
        length = call.headers.get("content-length")
        announced = int(length) if length is not None else None
        told = call.headers.get("content-range")
        if told is None:
            return announced
        match = CONTENT_RANGE.fullmatch(told.strip())
        if match is None or int(match["first"]) != upload.size:
            place = _progress(call, upload.path.name, upload.size)
            message = f"the upload goes on at byte {upload.size}"
            raise RegistryError("BLOB_UPLOAD_INVALID", message, status=416, headers=place)
        size = int(match["last"]) - int(match["first"]) + 1
        if announced not in (None, size):
            raise RegistryError("SIZE_INVALID", "Content-Range and Content-Length differ")
        return size

    async def _open(self, call: Call, upload_id: str) -> Upload:
        upload: Upload = await guarded(self._store.open, call.repository.organization_id, upload_id)
        return upload

    async def _find(self, call: Call, digest: str) -> bool:
        organization_id = call.repository.organization_id
        return await asyncio.to_thread(self._store.blob, organization_id, digest, self._now()) is not None

    def _now(self) -> float:
        return self._machine.now().timestamp()


def full(store: ImageStore, error: RegistryFull) -> RegistryError:
    """`DENIED`, since clients repeat what fails with other codes."""
    return RegistryError(
        "DENIED",
        f"{error} (it may hold {store.max_bytes >> 20} MiB, SANDYARD_REGISTRY_GIB): delete snapshots that are not "
        "needed; where room is needed, an image that nothing refers to goes an hour after it was last asked for",
    )


async def guarded(work: Callable[..., Any], *arguments: Any) -> Any:
    """Blocking work in a thread, its refusals in the registry's words."""
    try:
        return await asyncio.to_thread(work, *arguments)
    except NoSuchUpload as error:
        raise no_such_upload() from error
    except UploadBusy as error:
        message = "another request writes to this upload"
        raise RegistryError("BLOB_UPLOAD_INVALID", message, status=409) from error
    except TooManyUploads as error:
        raise RegistryError("TOOMANYREQUESTS", str(error)) from error
    except WrongDigest as error:
        raise RegistryError("DIGEST_INVALID", str(error)) from error


def _may_mount(call: Call) -> bool:
    """Whether the repository to mount from is of the same organization; who names none means any."""
    if not call.argument("from"):
        return True
    source = parse_repository(call.argument("from"))
    return source is not None and source.organization_id == call.repository.organization_id


async def _created(call: Call, digest: str) -> None:
    place = f"{ROOT}/{call.repository.path}/blobs/sha256:{digest}"
    headers = [(b"location", place.encode()), (b"docker-content-digest", f"sha256:{digest}".encode())]
    await answer(call.scope, call.send, 201, headers=headers)


def _progress(call: Call, upload_id: str, size: int) -> Headers:
    """Where to go on. A range cannot say that there is nothing: clients know `0-0` for that."""
    return [
        (b"location", f"{ROOT}/{call.repository.path}/blobs/uploads/{upload_id}".encode()),
        (b"range", b"0-%d" % max(0, size - 1)),
        (b"docker-upload-uuid", upload_id.encode()),
    ]
