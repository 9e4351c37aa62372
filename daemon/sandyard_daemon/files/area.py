"""The operations below `/files`: requests in, answers out. How each is done stands in the modules beside this one."""

import json
from collections.abc import Awaitable
from typing import Any

from sandyard_daemon.areas import Context
from sandyard_daemon.errors import BadRequest, DaemonError, Internal, InvalidBody, NoPlaceToLook, envelope
from sandyard_daemon.files.changes import FOLDER_MODE, Ownership, delete, make_folder, octal
from sandyard_daemon.files.downloads import DownloadRoutes
from sandyard_daemon.files.entries import described, look
from sandyard_daemon.files.looking import glob, listing, names_like, text_in
from sandyard_daemon.files.moving import move
from sandyard_daemon.files.paths import checked, query_of, refusal, required
from sandyard_daemon.files.replacing import replace_text
from sandyard_daemon.files.uploads import UploadRoutes
from sandyard_daemon.files.workers import Workers
from sandyard_daemon.http.messages import Answer, Handler, Request, Response, StreamResponse, json_response
from sandyard_daemon.routes.early import answer_in_time
from sandyard_daemon.routes.fields import optional_text, texts

JSON = "application/json"
TRUNCATED = "X-Sandyard-Truncated"
"""Header of a `find` that stopped at its limit."""
MAX_DEPTH = 1 << 31


class FilesArea:
    """Everything below `/files`."""

    def __init__(self, context: Context) -> None:
        self._resolve = context.environment.resolve
        self._workers = Workers()

    def handlers(self) -> dict[str, Handler]:
        """By operation id."""
        operations = {
            "ListFiles": self.list_files,
            "GetFileInfo": self.info,
            "DeleteFile": self.delete,
            "CreateFolder": self.folder,
            "MoveFile": self.move,
            "SetFilePermissions": self.permissions,
            "SearchFiles": self.search,
            "FindInFiles": self.find,
            "ReplaceInFiles": self.replace,
            **UploadRoutes(self._workers, self._resolve).handlers(),
            **DownloadRoutes(self._workers, self._resolve).handlers(),
        }
        return {name: _refusing(handler) for name, handler in operations.items()}

    async def close(self) -> None:
        """Let threads end what they are at."""
        await self._workers.close()

    async def list_files(self, request: Request) -> Answer:
        """GET `/files`: what is in `path` (default: the work directory), `depth` levels deep."""
        query = query_of(request)
        depth = query.get("depth", "1")
        if not (depth.isascii() and depth.isdigit() and 1 <= int(depth[:12]) < MAX_DEPTH):
            raise BadRequest("depth must be a whole number, at least 1")
        root = self._resolve(checked(query.get("path", "")))
        steps = listing(root, int(depth), is_brief=request.caller.decodes_strictly)
        return StreamResponse(200, await self._workers.begin(steps), JSON)

    async def info(self, request: Request) -> Answer:
        """GET `/files/info`: follows links; of a dangling one, the link itself."""
        path = self._resolve(required(query_of(request), "path"))
        name = path.rstrip("/").rpartition("/")[2] or "/"
        status = await self._workers.run(look, path)
        return Response(200, described(path, name, status, is_brief=request.caller.decodes_strictly), JSON)

    async def delete(self, request: Request) -> Answer:
        """DELETE `/files`: 204. A directory only with `recursive=true`."""
        query = query_of(request)
        path = self._resolve(required(query, "path"))
        await self._workers.drive(delete(path, recursive=query.get("recursive") == "true"))
        return Response(204)

    async def folder(self, request: Request) -> Answer:
        """POST `/files/folder`: 201, with the parents; also when it was there."""
        query = query_of(request)
        path = self._resolve(required(query, "path"))
        mode = octal(query["mode"]) if query.get("mode") else FOLDER_MODE
        await self._workers.run(make_folder, path, mode)
        return Response(201)

    async def move(self, request: Request) -> Answer:
        """POST `/files/move`: 409 where the destination exists."""
        query = query_of(request)
        source, destination = (self._resolve(required(query, name)) for name in ("source", "destination"))
        await self._workers.drive(move(source, destination))
        return Response(200)

    async def permissions(self, request: Request) -> Answer:
        """POST `/files/permissions`: `mode`, `owner`, `group`, all of them or nothing."""
        query = query_of(request)
        path = self._resolve(required(query, "path"))
        wanted = await self._workers.run(
            Ownership.read, *(checked(query.get(name, ""), name) for name in ("mode", "owner", "group"))
        )
        await self._workers.run(wanted.apply, path)
        return Response(200)

    async def search(self, request: Request) -> Answer:
        """GET `/files/search`: every path below `path` whose last part matches the shell pattern."""
        query = query_of(request)
        path, pattern = required(query, "path"), glob(required(query, "pattern"))
        with _NoRoot():
            found = await self._workers.begin(names_like(self._resolve(path), path, pattern))
        return StreamResponse(200, found, JSON)

    async def find(self, request: Request) -> Answer:
        """GET `/files/find`: every line below `path` that holds the literal text."""
        query = query_of(request)
        path, pattern = required(query, "path"), required(query, "pattern").encode("utf-8", "surrogateescape")
        return await self._in_time(request, self._find(path, pattern))

    async def _find(self, path: str, pattern: bytes) -> Response:
        with _NoRoot():
            found = await self._workers.drive(text_in(self._resolve(path), path, pattern))
        return Response(200, found.json, JSON, ((TRUNCATED, "true"),) if found.is_truncated else ())

    async def replace(self, request: Request) -> Answer:
        """POST `/files/replace`: file by file, each changed in one step; what failed is told beside the others."""
        body = await request.json_object()
        if body.get("files") is None:
            raise InvalidBody("files is required")
        files, value = texts(body, "files"), optional_text(body, "newValue")
        if not body.get("pattern") or value is None:
            raise InvalidBody("pattern, not empty, and newValue are required")
        pattern = optional_text(body, "pattern") or ""
        return await self._in_time(request, self._replace(files, pattern.encode(), value.encode()))

    async def _replace(self, files: list[str], pattern: bytes, value: bytes) -> Response:
        results: list[dict[str, Any]] = []
        for name in files:
            try:
                await self._workers.drive(replace_text(self._resolve(checked(name)), pattern, value))
            except DaemonError as error:
                results.append({"file": name, "success": False, "error": error.message})
            except OSError as error:
                results.append({"file": name, "success": False, "error": refusal(error, name).message})
            else:
                results.append({"file": name, "success": True})
        return json_response(200, results)

    async def _in_time(self, request: Request, work: Awaitable[Response]) -> Answer:
        if not request.caller.needs_early_bytes:
            return await work
        return await answer_in_time(work, lambda error: _late_error(request, error))


class _NoRoot:
    """In what looks through a tree, a missing root is a bad request. *Source:* contract/README.md 36."""

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, FileNotFoundError):
            raise NoPlaceToLook(refusal(error).message) from error


def _refusing(handler: Handler) -> Handler:
    """System errors become what a client is told; those of its connection stay what they are."""

    async def handle(request: Request) -> Answer:
        try:
            return await handler(request)
        except (ConnectionError, TimeoutError):
            raise
        except OSError as error:
            raise refusal(error) from error

    return handle


def _late_error(request: Request, error: BaseException) -> bytes:
    """The status is out already; a list is what was promised, so that this cannot be read as one."""
    problem = error if isinstance(error, DaemonError) else Internal(str(error))
    return json.dumps(envelope(problem, method=request.method, path=request.raw_path)).encode()
