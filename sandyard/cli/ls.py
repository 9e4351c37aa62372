"""`sandyard ls`: the sandboxes there are."""

import json
from typing import Any
from urllib.parse import quote

import click
from rich.console import Console
from rich.table import Table

from sandyard.cli.client import Client, find
from sandyard.cli.options import settings_of, settings_options


@click.command()
@settings_options("data_dir")
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a table.")
def ls(as_json: bool, **options: Any) -> None:
    """List the sandboxes with their state and last activity."""
    items = _all(find(settings_of(**options)))
    if as_json:
        click.echo(json.dumps(items, indent=2))
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("ID", "NAME", "STATE", "SNAPSHOT", "LAST ACTIVITY"):
        table.add_column(heading, no_wrap=heading == "ID")
    for item in items:
        table.add_row(
            item["id"], item["name"], item["state"], item.get("snapshot") or "-", item.get("lastActivityAt") or "-"
        )
    Console().print(table)


def _all(client: Client) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = client.get(f"/api/sandbox?limit=200{cursor}")
        items += page["items"]
        if not page["nextCursor"]:
            return items
        cursor = f"&cursor={quote(page['nextCursor'], safe='')}"
