"""`sandyard journal`: what was asked of a running Sandyard, and what it answered."""

import json
from typing import Any
from urllib.parse import urlencode

import click

from sandyard.cli.client import find
from sandyard.cli.options import settings_of, settings_options


@click.group(invoke_without_command=True)
@settings_options("data_dir")
@click.option("--operation", help="Only this operation id.")
@click.option("--status", type=int, help="Only this status.")
@click.option("--sandbox", help="Only this sandbox id.")
@click.option("--path", help="Only with this anywhere in the path.")
@click.option("--text", help="Only with this in path or bodies.")
@click.option("--since", type=int, help="Only after the record of this number.")
@click.option("--format", "form", type=click.Choice(("lines", "json", "curl", "har", "pytest")), default="lines")
@click.pass_context
def journal(ctx: click.Context, /, form: str, **options: Any) -> None:
    """Show the records; `on`, `off`, `clear` and `coverage` are commands of their own."""
    searches = ("operation", "status", "sandbox", "path", "text", "since")
    wanted = {name: value for name in searches if (value := options.pop(name)) is not None}
    ctx.obj = find(settings_of(**options))
    if ctx.invoked_subcommand is not None:
        return
    told = ctx.obj.get("/_sandyard/journal?" + urlencode(wanted | {"format": "json" if form == "lines" else form}))
    if form != "lines":
        click.echo(told if isinstance(told, str) else json.dumps(told, indent=2))
        return
    for record in told["records"]:
        click.echo(line_of(record))
    if not told["on"]:
        click.echo("the journal is off; `sandyard journal on` switches it on", err=True)


@journal.command()
@click.pass_obj
def on(client: Any) -> None:
    """Record from now on."""
    client.call("POST", "/_sandyard/journal", {"on": True})


@journal.command()
@click.pass_obj
def off(client: Any) -> None:
    """Record no more; what there is stays."""
    client.call("POST", "/_sandyard/journal", {"on": False})


@journal.command()
@click.pass_obj
def clear(client: Any) -> None:
    """Forget every record."""
    client.call("DELETE", "/_sandyard/journal")


@journal.command()
@click.option("--json", "as_json", is_flag=True, help="The whole report as JSON.")
@click.pass_obj
def coverage(client: Any, as_json: bool) -> None:
    """Which operations were asked for, and which error answers were met."""
    told = client.get("/_sandyard/journal/coverage")
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    click.echo(f"{told['touched']} of {told['operations']} operations")
    for name, statuses in told["statuses"].items():
        errors = ", ".join(told["errors"].get(name, ())) or "no error path"
        counts = ", ".join(f"{count} x {status}" for status, count in statuses.items())
        click.echo(f"  {name}: {counts} ({errors})")
    click.echo(f"untouched: {', '.join(told['untouched'])}")


def line_of(record: dict[str, Any]) -> str:
    """One record for a terminal or a test report."""
    told = record["status"] or "no answer"
    closed = f" closed {record['closeCode']}" if record["closeCode"] is not None else ""
    who = f"  {record['source']} {record['version']}".rstrip()
    milliseconds = record["seconds"] * 1000
    return f"{record['number']:>5} {record['method']:<9} {told} {milliseconds:8.1f} ms {record['path']}{closed}{who}"
