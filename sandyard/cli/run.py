"""`sandyard run -- COMMAND`: a Sandyard for the length of one command."""

import asyncio
import os
import signal
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from sandyard.cli.lifetime import run as run_loop
from sandyard.cli.lifetime import say, told_to_end
from sandyard.cli.options import settings_of, settings_options
from sandyard.keeping import hold
from sandyard.settings import Settings
from sandyard.wiring import open_embedded
from sandyard_runner.app import Leave

GRACE_SECONDS = 10
NOT_FOUND = 127


@click.command(context_settings={"ignore_unknown_options": True})
@settings_options("data_dir", "runtime", "isolation", "network", "database_url", "bus_url")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, required=True)
def run(command: tuple[str, ...], **options: Any) -> None:
    """Start Sandyard on a free port, run COMMAND with its URL and key set, remove everything, exit as COMMAND did."""
    settings = replace(settings_of(**options), port=0)
    if options["data_dir"] is not None:
        raise SystemExit(run_loop(_run(settings, command), log_level=settings.log_level))
    # A directory of its own, so that a `sandyard up` beside us is not in the way.
    with tempfile.TemporaryDirectory(prefix="sandyard-run-") as own:
        settings = replace(settings, data_dir=Path(own))
        raise SystemExit(run_loop(_run(settings, command), log_level=settings.log_level))


async def _run(settings: Settings, command: Sequence[str]) -> int:
    with hold(settings.data_dir):
        async with told_to_end() as ending, open_embedded(settings, leave=Leave.REMOVE) as running:
            environment = os.environ | {
                "DAYTONA_API_URL": f"{running.url}/api",
                "DAYTONA_API_KEY": running.api_key,
            }
            try:
                process = await asyncio.create_subprocess_exec(*command, env=environment)
            except OSError as error:
                say(f"{command[0]}: {error.strerror}")
                return NOT_FOUND
            return await _wait(process, ending)


async def _wait(process: asyncio.subprocess.Process, ending: asyncio.Event) -> int:
    """The command's status as a shell would tell it; a signal to us is passed on to it."""
    exited = asyncio.create_task(process.wait())
    told = asyncio.create_task(ending.wait())
    try:
        await asyncio.wait({exited, told}, return_when=asyncio.FIRST_COMPLETED)
        if not exited.done():
            process.send_signal(signal.SIGTERM)
            done, _ = await asyncio.wait({exited}, timeout=GRACE_SECONDS)
            if not done:
                process.kill()
        status = await exited
    finally:
        told.cancel()
    return 128 - status if status < 0 else status
