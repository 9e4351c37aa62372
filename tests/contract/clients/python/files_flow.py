"""Files by every call that all releases from 0.27 on have, streams and signed URLs where there are any; prints JSON."""

import hashlib
import inspect
import io
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from daytona import Daytona, DaytonaError
from daytona.common.filesystem import FileUpload

CONTENT = bytes(range(256)) * 2000
READS_ASCII_NAMES_ONLY = version("daytona").startswith(("0.143.", "0.166."))
"""Their form parser takes `filename` alone, and loses what is not ASCII in it, however it was sent."""
NAME = "work/bytes.bin" if READS_ASCII_NAMES_ONLY else "work/bytes ü.bin"


def refused(call: Callable[[], object]) -> list[str]:
    """The name of the error's class and its text."""
    try:
        call()
    except DaytonaError as error:
        return [type(error).__name__, str(error)]
    return ["nothing was raised", ""]


def digest(content: bytes) -> str:
    """Short enough to print."""
    return hashlib.sha256(content).hexdigest()


def transfer(fs: Any, saw: dict[str, Any], local: str) -> None:
    """Bytes, a local file, many at once, and streams."""
    fs.upload_file(CONTENT, NAME)
    saw["bytes"] = digest(fs.download_file(NAME)) == digest(CONTENT)
    with open(local, "wb") as file:
        file.write(CONTENT[::-1])
    fs.upload_file(local, "work/file.bin")
    fs.download_file("work/file.bin", local + ".back")
    with open(local + ".back", "rb") as file:
        saw["file"] = file.read() == CONTENT[::-1]
    fs.upload_files([FileUpload(b"one", "work/a/1.txt"), FileUpload(local, "work/a/2.bin")])
    saw["many"] = [bytes(fs.download_file("work/a/1.txt")).decode(), digest(fs.download_file("work/a/2.bin"))]
    saw["many expected"] = ["one", digest(CONTENT[::-1])]
    if hasattr(fs, "download_files"):
        from daytona.common.filesystem import FileDownloadRequest

        got = fs.download_files([FileDownloadRequest("work/a/1.txt"), FileDownloadRequest("nowhere")])
        saw["bulk"] = [[one.source, bytes(one.result or b"").decode(), bool(one.error)] for one in got]
    if hasattr(fs, "upload_file_stream"):
        progress: list[Any] = []
        fs.upload_file_stream(io.BytesIO(CONTENT * 10), "work/stream.bin")
        parts = list(fs.download_file_stream("work/stream.bin", on_progress=progress.append))
        saw["stream"] = b"".join(parts) == CONTENT * 10
        saw["total"] = sorted({one.total_bytes for one in progress})
    saw["upload onto a folder"] = refused(lambda: fs.upload_file(b"x", "work/a"))
    saw["download missing"] = refused(lambda: fs.download_file("nowhere"))


def look_and_change(fs: Any, saw: dict[str, Any]) -> None:
    """Everything else."""
    fs.create_folder("work/new/deep", "755")
    saw["list"] = sorted(one.name for one in fs.list_files("work"))
    if "depth" in inspect.signature(fs.list_files).parameters:
        saw["depth"] = sorted(one.name for one in fs.list_files("work", depth=2))
    info = fs.get_file_info("work/a/1.txt")
    saw["info"] = [info.name, int(info.size), info.is_dir, info.mode, info.permissions]
    fs.set_file_permissions("work/a/1.txt", mode="600")
    saw["mode"] = fs.get_file_info("work/a/1.txt").permissions
    fs.upload_file(b"alpha\nneedle one\n", "work/a/3.txt")
    saw["find"] = [[one.file, int(one.line), one.content] for one in fs.find_files("work", "needle")]
    saw["search"] = sorted(fs.search_files("work", "*.txt").files)
    saw["replace"] = [[one.file, one.success] for one in fs.replace_in_files(["work/a/3.txt"], "needle", "pin")]
    saw["replaced"] = bytes(fs.download_file("work/a/3.txt")).decode()
    fs.move_files("work/a/3.txt", "work/moved.txt")
    saw["move onto"] = refused(lambda: fs.move_files("work/moved.txt", "work/a/1.txt"))
    saw["info missing"] = refused(lambda: fs.get_file_info("work/a/3.txt"))
    fs.delete_file("work/moved.txt")
    saw["delete again"] = refused(lambda: fs.delete_file("work/moved.txt"))
    if "recursive" in inspect.signature(fs.delete_file).parameters:
        saw["delete folder"] = refused(lambda: fs.delete_file("work"))
        fs.delete_file("work", recursive=True)
        saw["list deleted"] = refused(lambda: fs.list_files("work"))


def signed(sandbox: Any, saw: dict[str, Any]) -> None:
    """Signed URLs, by a client that knows nothing else."""
    form = b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\nsigned\r\n--b--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    request = urllib.request.Request(sandbox.upload_url("si gned ü.txt"), form, headers)  # noqa: S310  our own URL
    with urllib.request.urlopen(request) as answer:  # noqa: S310  likewise
        saw["signed upload"] = answer.status
    url = sandbox.download_url("si gned ü.txt", 0)
    with urllib.request.urlopen(url) as answer:  # noqa: S310  likewise
        saw["signed download"] = answer.read().decode()
    sandbox.rotate_signing_key()
    saw["signed after rotation"] = status_of(url)
    with urllib.request.urlopen(sandbox.download_url("si gned ü.txt")) as answer:  # noqa: S310  likewise
        saw["signed anew"] = answer.read().decode()


def status_of(url: str) -> int:
    """The status of a plain GET."""
    try:
        with urllib.request.urlopen(url) as answer:  # noqa: S310  our own URL
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def main() -> None:
    """Create, use, delete."""
    sandbox = Daytona().create()
    saw: dict[str, Any] = {}
    try:
        transfer(sandbox.fs, saw, "local.bin")
        look_and_change(sandbox.fs, saw)
        if hasattr(sandbox, "download_url"):
            signed(sandbox, saw)
    finally:
        sandbox.delete()
    json.dump(saw, sys.stdout)


if __name__ == "__main__":
    main()
