"""What a test run's server does: a whole Sandyard in a folder of the run, until the run is over."""

import asyncio
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from sandyard.cli.lifetime import run, told_to_end
from sandyard.keeping import hold
from sandyard.settings import Settings, read_settings
from sandyard.testing import DATA, READY
from sandyard.wiring import open_embedded
from sandyard_runner.app import Leave

POLL_SECONDS = 0.5


def serve(folder: Path, owner_pid: int, chosen: Mapping[str, str | None]) -> None:
    """Serve until told to end, or the owner has ended: then nobody else removes the folder.

    `chosen` are settings; `None` is their default.
    """
    settings = read_settings(None, port=0, data_dir=folder / DATA, journal=True, **chosen)
    is_told = run(_serve(settings, folder, owner_pid), log_level=settings.log_level)
    if not is_told:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # another server of the run is still at it
            folder.parent.rmdir()


async def _serve(settings: Settings, folder: Path, owner_pid: int) -> bool:
    """Whether we were told to end."""
    with hold(settings.data_dir):
        async with told_to_end() as ending, open_embedded(settings, leave=Leave.REMOVE) as running:
            ready = {"pid": os.getpid(), "origin": running.url, "api_key": running.api_key}
            temporary = folder / f"{READY}.new"
            temporary.touch(mode=0o600)
            temporary.write_text(json.dumps(ready), encoding="utf-8")
            temporary.replace(folder / READY)
            watching = asyncio.create_task(_until_gone(owner_pid), name="owner")
            told = asyncio.create_task(ending.wait(), name="ending")
            await asyncio.wait({watching, told}, return_when=asyncio.FIRST_COMPLETED)
            for task in (watching, told):
                task.cancel()
            await asyncio.gather(watching, told, return_exceptions=True)
            return ending.is_set()


async def _until_gone(pid: int) -> None:
    """Return when that process has ended: a test run that was killed must leave nothing running."""
    try:
        descriptor = os.pidfd_open(pid)
    except (AttributeError, OSError):
        with suppress(ProcessLookupError):
            while True:
                os.kill(pid, 0)
                await asyncio.sleep(POLL_SECONDS)
        return
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
