"""`sandyard quirks`: behaviour of the real service that bites clients, on demand."""

from typing import Any

import click

from sandyard.cli.client import find
from sandyard.cli.options import settings_of, settings_options


@click.command()
@settings_options("data_dir")
@click.option("--off", is_flag=True, help="Switch NAME off.")
@click.argument("name", required=False)
def quirks(name: str | None, off: bool, **options: Any) -> None:
    """List the quirks, or switch NAME on for the organization of the key."""
    client = find(settings_of(**options))
    if name is None:
        told = client.get("/_sandyard/quirks")
    else:
        told = client.call("POST", "/_sandyard/quirks", {"name": name, "on": not off})
    for one in told["quirks"]:
        click.echo(f"{'on ' if one['on'] else 'off'} {one['name']}: {one['what']} [{one['source']}]")
