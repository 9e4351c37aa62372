"""Files by the asynchronous client; prints what it saw as one JSON object."""

import asyncio
import io
import json
import sys
from typing import Any

from daytona import AsyncDaytona, DaytonaError
from daytona.common.filesystem import FileDownloadRequest, FileUpload

CONTENT = bytes(range(256)) * 2000


async def use(sandbox: Any, saw: dict[str, Any]) -> None:
    """Transfers at once, then the rest."""
    fs = sandbox.fs
    await asyncio.gather(*(fs.upload_file(CONTENT, f"work/{number}.bin") for number in range(8)))
    saw["at once"] = all([await fs.download_file(f"work/{number}.bin") == CONTENT for number in range(8)])
    await fs.upload_files([FileUpload(b"one", "work/a/1.txt"), FileUpload(b"", "work/a/empty")])
    requests = [FileDownloadRequest(path) for path in ("work/a/1.txt", "nowhere", "work/0.bin")]
    got = await fs.download_files(requests)
    saw["bulk"] = [[one.source, len(one.result or b""), bool(one.error)] for one in got]
    await fs.upload_file_stream(io.BytesIO(CONTENT * 10), "work/stream.bin")
    size = 0
    async for chunk in await fs.download_file_stream("work/stream.bin"):
        size += len(chunk)
    saw["stream"] = size
    await fs.create_folder("work/new", "700")
    saw["list"] = sorted(one.name for one in await fs.list_files("work"))
    saw["info"] = (await fs.get_file_info("work/new")).permissions
    saw["find"] = [one.line for one in await fs.find_files("work/a", "one")]
    saw["search"] = (await fs.search_files("work", "*.txt")).files
    saw["replace"] = [one.success for one in await fs.replace_in_files(["work/a/1.txt"], "one", "two")]
    await fs.set_file_permissions("work/a/1.txt", mode="640")
    await fs.move_files("work/a/1.txt", "work/b.txt")
    saw["moved"] = (await fs.download_file("work/b.txt")).decode()
    await fs.delete_file("work", recursive=True)
    try:
        await fs.get_file_info("work")
    except DaytonaError as error:
        saw["missing"] = type(error).__name__
    saw["url"] = await sandbox.download_url("x")
    await sandbox.rotate_signing_key()


async def main() -> None:
    """Create, use, delete."""
    saw: dict[str, Any] = {}
    async with AsyncDaytona() as daytona:
        sandbox = await daytona.create()
        try:
            await use(sandbox, saw)
        finally:
            await sandbox.delete()
    json.dump(saw, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main())
