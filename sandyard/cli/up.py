"""`sandyard up`: a whole Sandyard in the foreground."""

import os
from typing import Any

import click

from sandyard import __version__
from sandyard.cli.lifetime import run, say, told_to_end
from sandyard.cli.options import ALL, settings_of, settings_options
from sandyard.keeping import Running, announce, hold
from sandyard.runtimes import notes_on
from sandyard.settings import Settings
from sandyard.wiring import open_embedded
from sandyard_runner.app import Leave


@click.command()
@settings_options(*ALL)
def up(**options: Any) -> None:
    """Run Sandyard: API, runner and proxy on one port.

    When it is ready, its lines `export ...` on standard output can be given to a shell. Ctrl-C stops the sandboxes and
    keeps their files.
    """
    settings = settings_of(**options)
    run(_up(settings), log_level=settings.log_level)


async def _up(settings: Settings) -> None:
    with hold(settings.data_dir):
        async with told_to_end() as ending, open_embedded(settings, leave=Leave.STOP) as running:
            with announce(settings.data_dir, Running(os.getpid(), running.url, running.runtime.name)):
                say(f"Sandyard {__version__} is ready at {running.url} (runtime: {running.runtime.name})")
                say(f"  {running.ssh}")
                for note in notes_on(running.runtime):
                    say(f"  note: {note}")
                click.echo(f"export DAYTONA_API_URL={running.url}/api")
                click.echo(f"export DAYTONA_API_KEY={running.api_key}")
                await ending.wait()
                say("Stopping the sandboxes; their files are kept.")
