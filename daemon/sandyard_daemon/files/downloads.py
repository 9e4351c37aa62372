"""The operations that give files out: one with ranges, or many as the parts of a form."""

import errno
import json
import os
import re
import time
from collections.abc import AsyncIterator, Callable
from urllib.parse import quote

from sandyard_daemon.errors import BadRequest, DaemonError, RangeNotSatisfiable, envelope
from sandyard_daemon.files.paths import checked, query_of, refusal, required, shown
from sandyard_daemon.files.reading import Content, Readable, opened
from sandyard_daemon.files.workers import Workers
from sandyard_daemon.http.messages import Answer, Handler, Request, Response, StreamResponse
from sandyard_daemon.routes.fields import texts

OCTETS = "application/octet-stream"
_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})", re.ASCII)
_INEXACT = re.compile(r"[^ -~]")
"""What a quoted header value cannot hold exactly."""
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

Resolve = Callable[[str | None], str]


class InvalidFilePath(BadRequest):
    """A part of a bulk answer: empty, a directory, or nothing that has bytes."""

    code = "INVALID_FILE_PATH"


class FileReadFailed(DaemonError):
    """A part of a bulk answer: the system could not read it."""

    code = "FILE_READ_FAILED"


class DownloadRoutes:
    """Downloads: read piece by piece while the client takes them."""

    def __init__(self, workers: Workers, resolve: Resolve) -> None:
        self._workers = workers
        self._resolve = resolve

    def handlers(self) -> dict[str, Handler]:
        """By operation id."""
        return {
            "DownloadFile": self.download,
            "DownloadFileHead": self.download,
            "DownloadFiles": self.download_many,
        }

    async def download(self, request: Request) -> Answer:
        """GET `/files/download`: 200, 206 for one range, 304 when it did not change since; several ranges get 200.

        *Source:* RFC 9110 sections 13 and 14.
        """
        path = required(query_of(request), "path")
        file = await opened(self._workers, self._resolve(path))
        size, modified = file.status.st_size, _http_date(file.status.st_mtime)
        headers: tuple[tuple[str, str], ...] = (
            ("Last-Modified", modified),
            ("Accept-Ranges", "bytes"),
            ("Content-Disposition", f"attachment; {_names(path.rstrip('/').rpartition('/')[2])}"),
        )
        wanted = request.header("if-modified-since")
        if wanted is not None and request.header("if-none-match") is None and _is_unchanged(file, wanted):
            self._workers.post(file.close)
            return Response(304, headers=headers)
        try:
            part = _range(request, size, modified)
        except RangeNotSatisfiable:
            self._workers.post(file.close)
            raise
        first, count = part or (0, size)
        headers += (("Content-Length", str(count)),)
        if part is not None:
            headers += (("Content-Range", f"bytes {first}-{first + count - 1}/{size}"),)
        content = Content(self._workers, file, first, count)
        return StreamResponse(200 if part is None else 206, content, OCTETS, headers)

    async def download_many(self, request: Request) -> Answer:
        """POST `/files/bulk-download`: a part `file` or `error` for each of `paths`, in their order."""
        paths = texts(await request.json_object(), "paths")
        if not paths:
            raise BadRequest("paths is required and must name a file")
        boundary = os.urandom(24).hex()
        kind = f"multipart/form-data; boundary={boundary}"
        return StreamResponse(200, self._parts(request, paths, boundary.encode()), kind)

    async def _parts(self, request: Request, paths: list[str], boundary: bytes) -> AsyncIterator[bytes]:
        for path in paths:
            try:
                file = await self._open_part(path)
            except DaemonError as error:
                body = json.dumps(envelope(error, method=request.method, path=request.raw_path)).encode()
                yield _part_head(boundary, "error", path, "application/json", len(body)) + body + b"\r\n"
                continue
            size = file.status.st_size
            content = Content(self._workers, file, 0, size)
            try:
                yield _part_head(boundary, "file", path, OCTETS, size)
                async for chunk in content:
                    yield chunk
                yield b"\r\n"
            finally:
                await content.aclose()
        yield b"--" + boundary + b"--\r\n"

    async def _open_part(self, path: str) -> Readable:
        """Raises a `DaemonError` with the code that parts use."""
        try:
            if not path:
                raise InvalidFilePath("the path is empty")
            return await opened(self._workers, self._resolve(checked(path)))
        except BadRequest as error:
            raise InvalidFilePath(error.message) from error
        except OSError as error:
            told = refusal(error, path)
            if error.errno in (errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP):
                raise InvalidFilePath(told.message) from error
            if told.code in ("FILE_NOT_FOUND", "FILE_ACCESS_DENIED"):
                raise told from error
            raise FileReadFailed(told.message) from error


def _part_head(boundary: bytes, name: str, path: str, kind: str, size: int) -> bytes:
    disposition = f'form-data; name="{name}"; {_names(path)}'
    lines = (f"Content-Disposition: {disposition}", f"Content-Type: {kind}", f"Content-Length: {size}", "", "")
    return b"--" + boundary + b"\r\n" + "\r\n".join(lines).encode("latin-1")


def _names(path: str) -> str:
    """`filename`, and beside it `filename*` where the first cannot be exact. *Source:* RFC 6266, RFC 8187."""
    plain = _INEXACT.sub("_", shown(path)).replace("\\", "\\\\").replace('"', '\\"')
    text = f'filename="{plain}"'
    if _INEXACT.search(path):
        text += f"; filename*=UTF-8''{quote(path, safe='', errors='surrogateescape')}"
    return text


def _range(request: Request, size: int, modified: str) -> tuple[int, int] | None:
    """First byte and number of bytes; `None` for all of them. Raises `RangeNotSatisfiable`."""
    found = _RANGE.fullmatch((request.header("range") or "").replace(" ", ""))
    if found is None or not (found[1] or found[2]) or request.header("if-range") not in (None, modified):
        return None
    if not found[1]:
        count = min(int(found[2]), size)
        first, last = size - count, size - 1
    else:
        first, last = int(found[1]), min(int(found[2] or size), size - 1)
        if found[2] and int(found[2]) < first:
            return None  # not a range; what cannot be understood is ignored
    if first > last:
        raise RangeNotSatisfiable(f"the file has {size} bytes", size=size)
    return first, last - first + 1


def _http_date(seconds: float) -> str:
    """*Source:* RFC 9110 section 5.6.7."""
    moment = time.gmtime(max(0, min(seconds, 253_402_300_799)))
    return (
        f"{_DAYS[moment.tm_wday]}, {moment.tm_mday:02d} {_MONTHS[moment.tm_mon - 1]} {moment.tm_year:04d} "
        f"{moment.tm_hour:02d}:{moment.tm_min:02d}:{moment.tm_sec:02d} GMT"
    )


def _is_unchanged(file: Readable, since: str) -> bool:
    parts = since.split()
    try:
        _, day, month, year, clock, _ = parts
        hour, minute, second = (int(number) for number in clock.split(":"))
        moment = (int(year), _MONTHS.index(month) + 1, int(day), hour, minute, second)
    except ValueError:
        return False
    return time.gmtime(max(0, int(file.status.st_mtime)))[:6] <= moment
