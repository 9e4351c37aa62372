"""The subset of S3 that SDKs use for build contexts, as an ASGI application. Path style; every request is signed."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import IO, Any
from urllib.parse import parse_qs, unquote

import msgspec
import structlog

from sandyard.clock import Clock
from sandyard.ids import IdSource
from sandyard.virtual_clock import machine_of
from sandyard_api.asgi import ClientGone, Headers, Receive, Scope, Send, body_of, headers_of
from sandyard_api.storage import answers
from sandyard_api.storage.answers import StorageError
from sandyard_api.storage.chunked import SIGNED, UNSIGNED, MalformedChunks, chunks_of
from sandyard_api.storage.credentials import StorageKeys
from sandyard_api.storage.files import MAX_PARTS, NoSuchUpload, ObjectFiles, StorageFull
from sandyard_api.storage.service import BUCKET, NOT_CONFIGURED, REGION, Contexts
from sandyard_api.storage.signature import UNSIGNED as UNSIGNED_WHOLE
from sandyard_api.storage.signature import NotAuthorized, SignedRequest, Verified, verify

KEY = re.compile(r"(?P<organization>[0-9A-Za-z_-]{1,128})/(?P<hash>[0-9A-Za-z_-]{1,128})/context\.tar")
MARKER = re.compile(r"[0-9A-Za-z_-]{1,128}/[0-9A-Za-z_-]{1,128}/")
"""What the command line client puts before a context; it asks for it by listing, which the context answers as well."""
WRITE_BYTES = 1 << 20
READ_BYTES = 1 << 18
SHA256 = re.compile(r"[0-9a-f]{64}")
XML: Headers = [(b"content-type", b"application/xml")]
MAX_KEYS = 1000

log = structlog.get_logger()


class _Call(msgspec.Struct, frozen=True):
    """One verified request."""

    scope: Scope
    receive: Receive
    send: Send
    verified: Verified
    request: SignedRequest
    key: str
    query: dict[str, list[str]]

    def argument(self, name: str) -> str:
        return self.query.get(name, [""])[-1]


class StorageApp:
    """Serves `/<bucket>` and what is below."""

    def __init__(
        self, contexts: Contexts, clock: Clock, ids: IdSource, *, make_room: Callable[[], Awaitable[None]]
    ) -> None:
        self._contexts = contexts
        self._keys: StorageKeys = contexts.keys
        self._clock = clock
        self._ids = ids
        self._make_room = make_room

    @staticmethod
    def serves(path: str) -> bool:
        """Whether a path is of the bucket."""
        return path == f"/{BUCKET}" or path.startswith(f"/{BUCKET}/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send, *, path: str, authority: str) -> None:
        """Answer one request; `authority` is what the client took for our host."""
        try:
            if self._contexts.files is None:
                raise StorageError("ServiceUnavailable", NOT_CONFIGURED)
            call = self._verified(scope, receive, send, path, authority)
            await self._dispatch(call, self._contexts.files)
        except ClientGone:
            log.info("upload_cut_short", path=path)
        except StorageError as error:
            await _answer(scope, send, answers.STATUS[error.code], error.body(), XML)

    def _verified(self, scope: Scope, receive: Receive, send: Send, path: str, authority: str) -> _Call:
        headers = headers_of(scope) | {"host": authority}
        query: bytes = scope["query_string"]
        request = SignedRequest(scope["method"], path, query, headers)
        try:
            verified = verify(request, self._keys, self._clock.now(), machine_now=machine_of(self._clock).now())
            values = parse_qs(query.decode("latin-1"), keep_blank_values=True, max_num_fields=100)
        except NotAuthorized as error:
            raise StorageError(error.code, str(error)) from error
        except ValueError as error:
            raise StorageError("InvalidRequest", "the query cannot be read") from error
        key = unquote(path.removeprefix(f"/{BUCKET}").removeprefix("/"))
        return _Call(scope, receive, send, verified, request, key, values)

    async def _dispatch(self, call: _Call, files: ObjectFiles) -> None:
        method = call.request.method
        if not call.key:
            await self._bucket(call, files, method)
            return
        if method == "PUT" and MARKER.fullmatch(call.key):
            self._own(call, call.key.split("/")[0])
            await _drain(call, files.max_object_bytes)
            await _answer(call.scope, call.send, 200, b"", [(b"etag", b'"d41d8cd98f00b204e9800998ecf8427e"')])
            return
        match = KEY.fullmatch(call.key)
        if match is None:
            raise StorageError("AccessDenied", "keys are <organization>/<hash>/context.tar")
        target = (match["organization"], match["hash"])
        self._own(call, target[0])
        if method in ("HEAD", "GET"):
            await self._read(call, files, target)
        elif method == "PUT":
            await self._write(call, files, target)
        elif method == "POST":
            await self._multipart(call, files, target)
        elif method == "DELETE" and call.argument("uploadId"):
            await _guarded(files.abort_parts, call.argument("uploadId"), target)
            await _answer(call.scope, call.send, 204, b"")
        else:
            raise StorageError("MethodNotAllowed", f"{method} is not part of this storage")

    def _own(self, call: _Call, organization_id: str) -> None:
        if organization_id != call.verified.grant.organization_id:
            raise StorageError("AccessDenied", "the credentials are for another organization's objects")

    async def _bucket(self, call: _Call, files: ObjectFiles, method: str) -> None:
        if method == "HEAD":
            await _answer(call.scope, call.send, 200, b"", [(b"x-amz-bucket-region", REGION.encode())])
        elif method == "GET" and "location" in call.query:
            await _answer(call.scope, call.send, 200, answers.location(REGION), XML)
        elif method == "GET":
            text = call.argument("max-keys") or str(MAX_KEYS)
            if not text.isascii() or not text.isdigit() or len(text) > 9:
                raise StorageError("InvalidArgument", "max-keys must be a number")
            organization_id = call.verified.grant.organization_id
            objects = await asyncio.to_thread(lambda: list(files.objects(organization_id)))
            prefix = call.argument("prefix")
            for found in objects if prefix.count("/") else ():
                if found.key.startswith(prefix):
                    owner, context_hash, _ = found.key.split("/")
                    await asyncio.to_thread(files.touch, owner, context_hash, self._now())
            body = answers.listing(
                BUCKET,
                prefix,
                call.argument("delimiter"),
                objects,
                max_keys=min(int(text), MAX_KEYS),
            )
            await _answer(call.scope, call.send, 200, body, XML)
        else:
            raise StorageError("MethodNotAllowed", f"{method} is not part of this storage")

    async def _read(self, call: _Call, files: ObjectFiles, target: tuple[str, str]) -> None:
        found = await asyncio.to_thread(files.find, *target)
        path = await asyncio.to_thread(files.path, *target)
        if found is None or path is None:
            raise StorageError("NoSuchKey", "there is no such context")
        await asyncio.to_thread(files.touch, *target, self._now())
        headers = answers.object_headers(found)
        await call.send({"type": "http.response.start", "status": 200, "headers": headers})
        if call.request.method == "GET":
            file = await asyncio.to_thread(path.open, "rb")
            try:
                while chunk := await asyncio.to_thread(file.read, READ_BYTES):
                    await call.send({"type": "http.response.body", "body": chunk, "more_body": True})
            finally:
                await asyncio.to_thread(file.close)
        await call.send({"type": "http.response.body", "body": b""})

    async def _write(self, call: _Call, files: ObjectFiles, target: tuple[str, str]) -> None:
        upload_id, number = call.argument("uploadId"), call.argument("partNumber")
        if "x-amz-copy-source" in call.request.headers:
            raise StorageError("MethodNotAllowed", "copies are not part of this storage")
        if upload_id and not (number.isascii() and number.isdigit() and 1 <= int(number[:6]) <= MAX_PARTS):
            raise StorageError("InvalidArgument", f"partNumber must be from 1 to {MAX_PARTS}")
        received = await self._receive(files)
        try:
            etag = await _take_body(call, received, files.max_object_bytes)
            if upload_id:
                await _guarded(files.keep_part, received, upload_id, target, int(number))
            else:
                await _guarded(files.keep, received, *target, etag, self._now())
        finally:
            await asyncio.to_thread(received.close)
        await _answer(call.scope, call.send, 200, b"", [(b"etag", f'"{etag}"'.encode())])

    async def _receive(self, files: ObjectFiles) -> IO[bytes]:
        """A place for a body. Where the storage is full, what nothing refers to makes room."""
        try:
            return await asyncio.to_thread(files.receive)
        except StorageFull:
            await self._make_room()
        received: IO[bytes] = await _guarded(files.receive)
        return received

    def _now(self) -> float:
        return self._clock.now().timestamp()

    async def _multipart(self, call: _Call, files: ObjectFiles, target: tuple[str, str]) -> None:
        await _drain(call, WRITE_BYTES)
        if "uploads" in call.query:
            upload_id = self._ids.token(32)
            await _guarded(files.begin_parts, upload_id, *target)
            body = answers.upload_begun(BUCKET, call.key, upload_id)
        elif upload_id := call.argument("uploadId"):
            # The parts are those that came: no SDK leaves one out of its list.
            etag = await _guarded(files.complete_parts, upload_id, target, self._now())
            body = answers.upload_completed(BUCKET, call.key, etag)
        else:
            raise StorageError("MethodNotAllowed", "POST is for multipart uploads here")
        await _answer(call.scope, call.send, 200, body, XML)


async def _take_body(call: _Call, target: IO[bytes], max_bytes: int) -> str:
    """Write the body, checked as the request says it can be; gives its MD5."""
    whole, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    size, held = 0, bytearray()
    async for piece in _payload(call):
        size += len(piece)
        if size > max_bytes:
            raise StorageError("EntityTooLarge", f"an object may have {max_bytes >> 20} MiB")
        whole.update(piece)
        md5.update(piece)
        held += piece
        if len(held) >= WRITE_BYTES:
            await asyncio.to_thread(target.write, bytes(held))
            held.clear()
    await asyncio.to_thread(target.write, bytes(held))
    if SHA256.fullmatch(call.request.payload) and whole.hexdigest() != call.request.payload:
        raise StorageError("XAmzContentSHA256Mismatch", "the body is not the one that was signed")
    return md5.hexdigest()


async def _payload(call: _Call) -> AsyncIterator[bytes]:
    """The body without the framing that it may have within HTTP's own."""
    kind, body = call.request.payload, body_of(call.receive)
    if SHA256.fullmatch(kind) or kind == UNSIGNED_WHOLE:
        framed = body
    elif kind in SIGNED:
        framed = chunks_of(body, call.verified.chunk_signature, call.verified.signature)
    elif kind in UNSIGNED:
        framed = chunks_of(body, None, "")
    else:
        raise StorageError("InvalidRequest", "this kind of x-amz-content-sha256 is not part of this storage")
    try:
        async for piece in framed:
            yield piece
    except MalformedChunks as error:
        raise StorageError("IncompleteBody", str(error)) from error


async def _drain(call: _Call, max_bytes: int) -> None:
    size = 0
    async for piece in body_of(call.receive):
        size += len(piece)
        if size > max_bytes:
            raise StorageError("EntityTooLarge", "the body is too long")


async def _guarded(work: Callable[..., Any], *arguments: Any) -> Any:
    """Blocking work in a thread, its refusals in S3's words."""
    try:
        return await asyncio.to_thread(work, *arguments)
    except StorageFull as error:
        raise StorageError("EntityTooLarge", str(error)) from error
    except NoSuchUpload as error:
        raise StorageError("NoSuchUpload", "there is no such upload") from error


async def _answer(scope: Scope, send: Send, status: int, body: bytes, headers: Headers | None = None) -> None:
    fields = [*(headers or []), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
