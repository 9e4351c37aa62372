"""`sandyard env`: what a client needs, for `eval "$(sandyard env)"` and direnv."""

from typing import Any

import click

from sandyard.cli.options import settings_of, settings_options
from sandyard.keeping import is_held, read_running


@click.command()
@settings_options("data_dir")
def env(**options: Any) -> None:
    """Print `export` lines for the Sandyard that is running on the data directory."""
    settings = settings_of(**options)
    running = read_running(settings.data_dir)
    if running is None or not is_held(settings.data_dir):
        raise click.ClickException(f"no Sandyard is running on {settings.data_dir}; start one with `sandyard up`")
    key = settings.api_key or (settings.data_dir / "api-key").read_text(encoding="ascii").strip()
    click.echo(f"export DAYTONA_API_URL={running.url}/api")
    click.echo(f"export DAYTONA_API_KEY={key}")
