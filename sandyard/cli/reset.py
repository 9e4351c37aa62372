"""`sandyard reset`: remove what tests left in a running Sandyard."""

from typing import Any

import click

from sandyard.cli.client import find
from sandyard.cli.options import settings_of, settings_options

RESET_SECONDS = 120.0


@click.command()
@settings_options("data_dir")
@click.option("--all", "everything", is_flag=True, help="Every organization, and the clock.")
@click.option("--seed", type=int, help="With --all: begin the identifiers of this seed anew.")
def reset(everything: bool, seed: int | None, **options: Any) -> None:
    """Remove the sandboxes and records of the key's organization; keys, images and snapshots stay."""
    client = find(settings_of(**options))
    body: dict[str, Any] = {"scope": "all" if everything else "organization"}
    done = client.call(
        "POST", "/_sandyard/reset", body if seed is None else body | {"seed": seed}, seconds=RESET_SECONDS
    )
    click.echo(f"removed {done['sandboxes']} sandboxes, {done['rows']} rows, {done['organizations']} organizations")
