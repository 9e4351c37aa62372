"""`sandyard faults`: rules for failures on order, in a running Sandyard."""

import json
from typing import Any

import click

from sandyard.cli.client import find
from sandyard.cli.options import settings_of, settings_options


@click.group(invoke_without_command=True)
@settings_options("data_dir")
@click.pass_context
def faults(ctx: click.Context, /, **options: Any) -> None:
    """List, order and take back failures."""
    ctx.obj = find(settings_of(**options))
    if ctx.invoked_subcommand is None:
        _show(ctx.obj.get("/_sandyard/faults")["faults"])


@faults.command()
@click.argument("rule")
@click.pass_obj
def add(client: Any, rule: str) -> None:
    """Put RULE in force; it is JSON, such as
    '{"operation": "ExecuteCommand", "action": {"kind": "status", "status": 503}}'."""
    try:
        body = json.loads(rule)
    except ValueError as error:
        raise click.UsageError(f"RULE is no JSON: {error}") from error
    _show([client.call("POST", "/_sandyard/faults", body)])


@faults.command()
@click.argument("rule_id", required=False)
@click.pass_obj
def clear(client: Any, rule_id: str | None) -> None:
    """Take back RULE_ID, or all. Ends with 1 when one of them never fired."""
    done = client.call("DELETE", f"/_sandyard/faults/{rule_id}" if rule_id else "/_sandyard/faults")
    click.echo(f"took back {done['removed']}")
    if done["neverFired"]:
        click.echo("never fired:")
        _show(done["neverFired"])
        raise SystemExit(1)


def _show(entries: list[dict[str, Any]]) -> None:
    for entry in entries:
        click.echo(f"{entry['id']}  seen {entry['seen']}, fired {entry['fired']}  {json.dumps(entry['rule'])}")
