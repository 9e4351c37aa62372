"""Our own container registry: the subset of the OCI distribution API with which engines push and pull, as ASGI.

Every request shows a login that opens the repositories of one organization. Not here: referrers (clients fall back to
tags), a catalogue, other digests than SHA-256, deleting single blobs.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import urlencode

import structlog

from sandyard.clock import Clock
from sandyard.ids import IdSource
from sandyard.virtual_clock import machine_of
from sandyard_api.asgi import ClientGone, Receive, Scope, Send, headers_of
from sandyard_api.image_registry.answers import JSON, VERSION, RegistryError, answer, refuse
from sandyard_api.image_registry.credentials import ImageGrant
from sandyard_api.image_registry.credentials import Scope as LoginScope
from sandyard_api.image_registry.manifests import InvalidManifest, Manifest, read_manifest
from sandyard_api.image_registry.receiving import MakeRoom, Receiving, full
from sandyard_api.image_registry.requests import (
    ROOT,
    Call,
    Kind,
    Target,
    basic_credentials,
    find_target,
    query_of,
    wanted_range,
)
from sandyard_api.image_registry.service import NOT_CONFIGURED, ImageRegistry
from sandyard_api.image_registry.store import ImageStore, NotThere
from sandyard_api.image_registry.uploads import RegistryFull

MAX_MANIFEST_BYTES = 4 << 20
READ_BYTES = 1 << 20
READING = frozenset({"GET", "HEAD"})
MAX_TAGS = 10_000
BAD_LOGIN = "the login is not valid, or not any more: ask for registry-push-access again"

Handler = Callable[[Call], Awaitable[None]]

log = structlog.get_logger()


class RegistryApp:
    """Serves `/v2/` and what is below, as far as it is the registry's."""

    def __init__(self, registry: ImageRegistry, clock: Clock, ids: IdSource, *, make_room: MakeRoom) -> None:
        self._registry = registry
        self._clock = clock
        self._handlers: Mapping[tuple[Kind, str], Handler] = {}
        if registry.store is not None:
            machine = machine_of(clock)
            images = _Images(registry.store, clock, machine, make_room)
            self._handlers = _handlers(images, Receiving(registry.store, machine, ids, make_room))

    @staticmethod
    def serves(path: str) -> bool:
        """Whether a path, still encoded, is the registry's. What else is below `/v2/` is not: clients of version 2 of
        the platform's API ask there."""
        return find_target(path) is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send, *, path: str) -> None:
        """Answer one request."""
        target = find_target(path)
        try:
            if not self._handlers or target is None:
                raise RegistryError("UNAVAILABLE", NOT_CONFIGURED)
            await self._dispatch(scope, receive, send, target)
        except ClientGone:
            log.info("push_cut_short", path=path)
        except RegistryError as error:
            await refuse(scope, send, error)

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send, target: Target) -> None:
        headers = headers_of(scope)
        grant = self._grant(headers)
        if target.kind is Kind.BASE and scope["method"] in READING:
            await answer(scope, send, 200, b"{}", [JSON])
            return
        if target.kind is Kind.OTHER:
            raise RegistryError("UNSUPPORTED", "this registry has neither referrers nor a catalogue", status=404)
        handler = self._handlers.get((target.kind, scope["method"]))
        if handler is None:
            raise RegistryError("UNSUPPORTED", f"{scope['method']} is not for what that names ({target.kind.value})")
        repository = target.repository
        if repository.organization_id != grant.organization_id:
            raise RegistryError("DENIED", "the login is for another organization's repositories")
        if scope["method"] not in READING and grant.scope is not LoginScope.PUSH:
            raise RegistryError("DENIED", "the login is for pulling alone")
        await handler(Call(scope, receive, send, target, repository, headers, query_of(scope)))

    def _grant(self, headers: Mapping[str, str]) -> ImageGrant:
        login = basic_credentials(headers.get("authorization", ""))
        if login is None:
            raise RegistryError("UNAUTHORIZED", "a login is needed: registry-push-access gives one")
        grant = self._registry.keys.open(*login, self._clock.now())
        if grant is None:
            raise RegistryError("UNAUTHORIZED", BAD_LOGIN)
        return grant


def _handlers(images: "_Images", receiving: Receiving) -> Mapping[tuple[Kind, str], Handler]:
    return {
        (Kind.UPLOADS, "POST"): receiving.begin,
        (Kind.UPLOAD, "GET"): receiving.show,
        (Kind.UPLOAD, "PATCH"): receiving.carry_on,
        (Kind.UPLOAD, "PUT"): receiving.finish,
        (Kind.UPLOAD, "DELETE"): receiving.cancel,
        (Kind.BLOB, "HEAD"): images.send_blob,
        (Kind.BLOB, "GET"): images.send_blob,
        (Kind.MANIFEST, "HEAD"): images.send_manifest,
        (Kind.MANIFEST, "GET"): images.send_manifest,
        (Kind.MANIFEST, "PUT"): images.put_manifest,
        (Kind.MANIFEST, "DELETE"): images.delete_manifest,
        (Kind.TAGS, "GET"): images.list_tags,
    }


class _Images:
    """The handlers of what is there: blobs, manifests, tags."""

    def __init__(self, store: ImageStore, clock: Clock, machine: Clock, make_room: MakeRoom) -> None:
        self._store = store
        self._clock = clock
        self._machine = machine
        self._make_room = make_room

    async def send_blob(self, call: Call) -> None:
        """HEAD and GET, also of a part."""
        digest, organization_id = call.target.digest, call.repository.organization_id
        path = await asyncio.to_thread(self._store.blob, organization_id, digest, self._now())
        if path is None:
            raise RegistryError("BLOB_UNKNOWN", f"there is no blob sha256:{digest}")
        file = await asyncio.to_thread(path.open, "rb")
        try:
            size = (await asyncio.to_thread(path.stat)).st_size
            part = wanted_range(call.headers.get("range", ""), size)
            headers = [VERSION, (b"content-type", b"application/octet-stream"), (b"accept-ranges", b"bytes")]
            headers.append((b"docker-content-digest", f"sha256:{digest}".encode()))
            headers.append((b"content-length", b"%d" % (size if part is None else len(part))))
            if part is not None:
                headers.append((b"content-range", b"bytes %d-%d/%d" % (part.start, part.stop - 1, size)))
                await asyncio.to_thread(file.seek, part.start)
            status = 200 if part is None else 206
            await call.send({"type": "http.response.start", "status": status, "headers": headers})
            left = 0 if call.method == "HEAD" else size if part is None else len(part)
            while left and (chunk := await asyncio.to_thread(file.read, min(left, READ_BYTES))):
                left -= len(chunk)
                await call.send({"type": "http.response.body", "body": chunk, "more_body": True})
            await call.send({"type": "http.response.body", "body": b""})
        finally:
            await asyncio.to_thread(file.close)

    async def send_manifest(self, call: Call) -> None:
        """HEAD and GET, by tag or digest."""
        digest: str | None = None
        if (tag := call.target.tag) is None:
            digest = call.target.digest
        else:
            digest = await asyncio.to_thread(self._store.tagged, call.repository, tag, self._clock.now().timestamp())
        found = await asyncio.to_thread(self._store.manifest, call.repository, digest) if digest else None
        if found is None:
            raise _no_such_manifest(call)
        headers = [(b"content-type", found.media_type.encode("ascii")), _digest_header(found)]
        await answer(call.scope, call.send, 200, found.content, headers)

    async def put_manifest(self, call: Call) -> None:
        """PUT, by tag or digest; all that it refers to must be there."""
        tag = call.target.tag
        media_type = call.headers.get("content-type", "").partition(";")[0].strip().lower()
        content = await _whole_body(call)
        try:
            manifest = await asyncio.to_thread(read_manifest, media_type, content)
        except InvalidManifest as error:
            raise RegistryError("MANIFEST_INVALID", str(error)) from error
        if tag is None and call.target.digest != manifest.digest:
            raise RegistryError("DIGEST_INVALID", f"what came is sha256:{manifest.digest}")
        try:
            await self._put(call, manifest, tag)
        except NotThere as error:
            raise RegistryError("MANIFEST_BLOB_UNKNOWN", f"{error} is not there") from error
        except RegistryFull as error:
            raise full(self._store, error) from error
        place = f"{ROOT}/{call.repository.path}/manifests/sha256:{manifest.digest}"
        headers = [(b"location", place.encode()), _digest_header(manifest)]
        await answer(call.scope, call.send, 201, headers=headers)

    async def _put(self, call: Call, manifest: Manifest, tag: str | None) -> None:
        tagged_at = self._clock.now().timestamp()
        try:
            await asyncio.to_thread(self._store.put, call.repository, manifest, tag, self._now(), tagged_at)
        except RegistryFull:
            await self._make_room()
            await asyncio.to_thread(self._store.put, call.repository, manifest, tag, self._now(), tagged_at)

    async def delete_manifest(self, call: Call) -> None:
        """DELETE: a tag alone, or by digest the manifest with its tags."""
        tag = call.target.tag
        if tag is None:
            gone = await asyncio.to_thread(self._store.remove, call.repository, call.target.digest)
        else:
            gone = await asyncio.to_thread(self._store.untag, call.repository, tag)
        if not gone:
            raise _no_such_manifest(call)
        await answer(call.scope, call.send, 202)

    async def list_tags(self, call: Call) -> None:
        """GET, at most `n` of those behind `last`."""
        tags = await asyncio.to_thread(self._store.tags, call.repository)
        if tags is None:
            raise RegistryError("NAME_UNKNOWN", f"there is no repository {call.repository.path}")
        text, last = call.argument("n") or str(MAX_TAGS), call.argument("last")
        if not text.isascii() or not text.isdigit() or len(text) > 9:
            raise RegistryError("UNSUPPORTED", "n must be a number", status=400)
        behind = sorted((tag for tag in tags if _order(tag) > _order(last)), key=_order)
        shown = behind[: min(int(text), MAX_TAGS)]
        headers = [JSON]
        if shown and len(shown) < len(behind):
            query = urlencode({"n": text, "last": shown[-1]})
            headers.append((b"link", f'<{ROOT}/{call.repository.path}/tags/list?{query}>; rel="next"'.encode()))
        body = json.dumps({"name": call.repository.path, "tags": shown}).encode()
        await answer(call.scope, call.send, 200, body, headers)

    def _now(self) -> float:
        return self._machine.now().timestamp()


def _order(tag: str) -> tuple[str, str]:
    """Without regard to case, as the specification has it."""
    return tag.casefold(), tag


def _digest_header(manifest: Manifest) -> tuple[bytes, bytes]:
    return b"docker-content-digest", f"sha256:{manifest.digest}".encode()


def _no_such_manifest(call: Call) -> RegistryError:
    return RegistryError("MANIFEST_UNKNOWN", f"there is no {call.target.item[:128]} in {call.repository.path}")


async def _whole_body(call: Call) -> bytes:
    content = bytearray()
    async for piece in call.body():
        content += piece
        if len(content) > MAX_MANIFEST_BYTES:
            message = f"a manifest may have {MAX_MANIFEST_BYTES >> 20} MiB"
            raise RegistryError("SIZE_INVALID", message, status=413)
    return bytes(content)
