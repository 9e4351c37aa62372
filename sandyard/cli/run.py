"""`sandyard run -- COMMAND`: a Sandyard for the length of one command."""

import asyncio
import os
import signal
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from sandyard.cli.lifetime import run as run_loop
from sandyard.cli.lifetime import say, told_to_end
from sandyard.cli.options import settings_of, settings_options
from sandyard.keeping import hold
from sandyard.settings import Settings
from sandyard.testing.client import BenchError, Door, Yard, new_yard, remove_yard
from sandyard.testing.report import sections
from sandyard.wiring import open_embedded
from sandyard_runner.app import Leave

GRACE_SECONDS = 10
NOT_FOUND = 127


@click.command(context_settings={"ignore_unknown_options": True})
@settings_options("data_dir", "runtime", "isolation", "network", "local_builds", "database_url", "bus_url")
@click.option(
    "--isolate",
    is_flag=True,
    help="Give COMMAND an organization of its own, in the Sandyard that DAYTONA_API_URL and _KEY name or, without one,"
    " in a new one; when it fails, show on standard error what it asked for and its commands' logs.",
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED, required=True)
def run(command: tuple[str, ...], isolate: bool, **options: Any) -> None:
    """Start Sandyard on a free port, run COMMAND with its URL and key set, remove everything, exit as COMMAND did."""
    settings = msgspec.structs.replace(settings_of(**options), port=0)
    if isolate:
        settings = msgspec.structs.replace(settings, journal=True)
        if (there := sandyard_there()) is not None:
            raise SystemExit(run_loop(_run_isolated(there, command), log_level=settings.log_level))
    if options["data_dir"] is not None:
        raise SystemExit(run_loop(_run(settings, command, isolate), log_level=settings.log_level))
    # A directory of its own, so that a `sandyard up` beside us is not in the way.
    with tempfile.TemporaryDirectory(prefix="sandyard-run-") as own:
        settings = msgspec.structs.replace(settings, data_dir=Path(own))
        raise SystemExit(run_loop(_run(settings, command, isolate), log_level=settings.log_level))


def sandyard_there() -> Door | None:
    """The Sandyard that the environment names."""
    url, key = os.environ.get("DAYTONA_API_URL"), os.environ.get("DAYTONA_API_KEY")
    return Door(url.rstrip("/").removesuffix("/api"), key) if url and key else None


async def _run(settings: Settings, command: Sequence[str], isolate: bool) -> int:
    with hold(settings.data_dir):
        async with told_to_end() as ending, open_embedded(settings, leave=Leave.REMOVE) as running:
            owner = Door(running.url, running.api_key)
            if isolate:
                return await _in_yard(owner, command, ending)
            return await _execute(command, Yard(owner, "").environment, ending)


async def _run_isolated(owner: Door, command: Sequence[str]) -> int:
    async with told_to_end() as ending:
        return await _in_yard(owner, command, ending)


async def _in_yard(owner: Door, command: Sequence[str], ending: asyncio.Event) -> int:
    """Run in an organization that lives as long as the command. Its streams stay its own."""
    try:
        yard = await asyncio.to_thread(new_yard, owner)
    except (BenchError, OSError) as error:
        raise click.ClickException(f"no organization at {owner.origin}: {error}") from error
    try:
        status = await _execute(command, yard.environment, ending)
        if status:
            for title, text in await asyncio.to_thread(sections, yard):
                say(f"---- {title} ----\n{text}")
        return status
    finally:
        await asyncio.to_thread(remove_yard, owner, yard)


async def _execute(command: Sequence[str], variables: Mapping[str, str], ending: asyncio.Event) -> int:
    try:
        process = await asyncio.create_subprocess_exec(*command, env=os.environ | dict(variables))
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
