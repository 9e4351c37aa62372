"""The operations that take files in: one by its path, or many in one form."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from sandyard_daemon.errors import BadRequest, DaemonError, envelope
from sandyard_daemon.files.multipart import BrokenForm, Form, boundary_of
from sandyard_daemon.files.paths import checked, query_of, refusal, required, shown
from sandyard_daemon.files.staging import Staged
from sandyard_daemon.files.workers import Workers
from sandyard_daemon.http.messages import Answer, Handler, Request, Response, json_response
from sandyard_daemon.wire import OWN_ERROR_HEADER

MAX_PATH = 8 << 10
"""Bytes of a path in a form; no file system takes half of it."""
MAX_FILES = 20_000
"""Of one form: what the answer tells of each is kept until its end."""
MAX_ERRORS = 100
_AT_ONCE = 512 << 10
_MAX_PIECES = 256

Resolve = Callable[[str | None], str]


class UploadRoutes:
    """Uploads: streamed to a file beside the target, which takes its place when it is whole."""

    def __init__(self, workers: Workers, resolve: Resolve) -> None:
        self._workers = workers
        self._resolve = resolve

    def handlers(self) -> dict[str, Handler]:
        """By operation id."""
        return {
            "UploadFile": self.upload,
            "UploadFileLegacy": self.upload_form,
            "UploadFiles": self.upload_many,
        }

    async def upload(self, request: Request) -> Answer:
        """POST `/files/upload-v2`: the form's field `file`, or the body as it is. 200 with what was made."""
        path = required(query_of(request), "path")
        boundary = boundary_of(request.header("content-type"))
        if boundary is None:
            await self._save(path, request.chunks())
        elif not await self._save_field(path, request, boundary):
            await self._save(path, _nothing())  # Go leaves the part of an empty file out
        name = shown(path).rstrip("/").rpartition("/")[2]
        return json_response(200, {"name": name, "path": shown(path), "type": "file"})

    async def upload_form(self, request: Request) -> Answer:
        """POST `/files/upload`, of older releases: a form only, and an empty answer."""
        path = required(query_of(request), "path")
        boundary = boundary_of(request.header("content-type"))
        if boundary is None or not await self._save_field(path, request, boundary):
            if boundary is None or not request.caller.is_go:
                raise BadRequest("a multipart/form-data body with the field file is required")
            await self._save(path, _nothing())  # it leaves the part of an empty file out
        return Response(200)

    async def upload_many(self, request: Request) -> Answer:
        """POST `/files/bulk-upload`: `files[<i>].path` and then `files[<i>].file`, for each i.

        200 when all were written. 400 with `errors`, and in `files` those that were written all the same.
        """
        batch = _Batch()
        try:
            boundary = boundary_of(request.header("content-type"))
            if boundary is None:
                raise BadRequest("a multipart/form-data body is required")
            form = Form(request.chunks(), boundary)
            async for name in form.parts():
                await self._take_part(batch, form, name)
        except DaemonError as error:  # a form that is broken off ends the batch
            batch.fail(error.message)
        else:
            for index in batch.paths:
                batch.fail(f"files[{index}].path came without files[{index}].file")
        return batch.answer(request)

    async def _take_part(self, batch: "_Batch", form: Form, name: str) -> None:
        index, _, field = name.removeprefix("files[").partition("]")
        if not name.startswith("files[") or field not in (".path", ".file"):
            return
        if field == ".path":
            batch.expect(index, await _text(form))
            return
        path = batch.take(index)
        if path is None:
            batch.fail(f"files[{index}].file came without a files[{index}].path before it")
            return
        try:
            size = await self._save(checked(path), form.pieces())
        except BrokenForm:
            raise
        except DaemonError as error:
            batch.fail(f"{shown(path)}: {error.message}")
        else:
            batch.files.append({"path": shown(path), "bytes": size})

    async def _save_field(self, path: str, request: Request, boundary: bytes) -> bool:
        """Whether the form had the field `file`."""
        form = Form(request.chunks(), boundary)
        is_saved = False
        async for name in form.parts():
            if name == "file" and not is_saved:
                await self._save(path, form.pieces())
                is_saved = True
        return is_saved

    async def _save(self, path: str, pieces: AsyncIterator[bytes]) -> int:
        """Write a file whole or not at all; its size. Raises `DaemonError`, and `ConnectionError` of the client."""
        staged = Staged(self._resolve(path))
        try:
            await self._blocking(path, staged.open)
            await self._write_all(path, staged, pieces)
            await self._blocking(path, staged.commit)
        except asyncio.CancelledError:
            self._workers.post(staged.discard)
            raise
        except Exception:
            await self._workers.run(staged.discard)
            raise
        return staged.size

    async def _write_all(self, path: str, staged: Staged, pieces: AsyncIterator[bytes]) -> None:
        """One batch is written while the next one arrives."""
        writing: asyncio.Task[None] | None = None
        try:
            async for batch in _batched(pieces):
                if writing is not None:
                    await writing
                writing = asyncio.create_task(self._blocking(path, staged.write, batch))
            if writing is not None:
                await writing
        finally:
            # Where something else failed first, that is what is told.
            if writing is not None and not writing.cancel() and not writing.cancelled():
                writing.exception()

    async def _blocking(self, path: str, function: Callable[..., None], *arguments: object) -> None:
        try:
            await self._workers.run(function, *arguments)
        except OSError as error:
            raise refusal(error, path) from error


class _Batch:
    """What has come of one form so far."""

    def __init__(self) -> None:
        self.paths: dict[str, str] = {}
        """Announced, by index; their files are still to come."""
        self.files: list[dict[str, Any]] = []
        self._errors: list[str] = []
        self._failed = 0

    def expect(self, index: str, path: str) -> None:
        if len(self.paths) + len(self.files) + self._failed >= MAX_FILES:
            raise BadRequest(f"more than {MAX_FILES} files in one form")
        self.paths[index] = path

    def take(self, index: str) -> str | None:
        return self.paths.pop(index, None)

    def fail(self, message: str) -> None:
        self._failed += 1
        if len(self._errors) < MAX_ERRORS:
            self._errors.append(message)

    def answer(self, request: Request) -> Response:
        if not self._failed:
            return json_response(200, {"files": self.files, "errors": []})
        if self._failed > len(self._errors):
            self._errors.append(f"and {self._failed - len(self._errors)} more")
        error = BadRequest("; ".join(self._errors))
        body = envelope(error, method=request.method, path=request.raw_path)
        answer = json_response(error.status, body | {"errors": self._errors, "files": self.files})
        return answer._replace(headers=((OWN_ERROR_HEADER, error.code),))


async def _text(form: Form) -> str:
    text = b""
    async for piece in form.pieces():
        text += piece
        if len(text) > MAX_PATH:
            raise BadRequest("a path in the form is too long")
    path = text.decode("utf-8", "surrogateescape").strip()
    if not path:
        raise BadRequest("a path in the form is empty")
    return path


async def _batched(pieces: AsyncIterator[bytes]) -> AsyncIterator[list[bytes]]:
    """Larger writes: each is a change of threads."""
    batch: list[bytes] = []
    size = 0
    async for piece in pieces:
        batch.append(piece)
        size += len(piece)
        if size >= _AT_ONCE or len(batch) >= _MAX_PIECES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""
