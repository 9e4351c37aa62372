"""`sandyard clock`: the virtual clock of a running Sandyard."""

import re
from typing import Any

import click

from sandyard.cli.client import find
from sandyard.cli.options import settings_of, settings_options

MOVE_SECONDS = 600.0
"""A move waits for the sandboxes that stop and go in between."""
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


class Span(click.ParamType[float]):
    """`90s`, `15m`, `1h30m`, `2d`, `1w`, or plain seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        if re.fullmatch(r"\d+(\.\d+)?", value):
            return float(value)
        parts = _SPAN.findall(value)
        if not parts or "".join(number + unit for number, unit in parts) != value:
            self.fail(f"{value!r} is no span of time; write 90s, 15m, 1h30m, 2d or 1w", param, ctx)
        return sum(float(number) * UNITS[unit] for number, unit in parts)


@click.group(invoke_without_command=True)
@settings_options("data_dir")
@click.pass_context
def clock(ctx: click.Context, /, **options: Any) -> None:
    """Show or move the time that timestamps, timers and expiries go by."""
    ctx.obj = find(settings_of(**options))
    if ctx.invoked_subcommand is None:
        _show(ctx.obj.get("/_sandyard/clock"))


@clock.command()
@click.argument("at", required=False)
@click.pass_obj
def freeze(client: Any, at: str | None) -> None:
    """Stand still, now or AT a later moment (RFC 3339)."""
    _move(client, {"action": "freeze"} | ({"at": at} if at else {}))


@clock.command("set")
@click.argument("at")
@click.pass_obj
def set_(client: Any, at: str) -> None:
    """Go to the moment AT (RFC 3339), through everything that is due before it."""
    _move(client, {"action": "set", "at": at})


@clock.command()
@click.argument("by", type=Span())
@click.pass_obj
def advance(client: Any, by: float) -> None:
    """Go on BY that much time: 90s, 15m, 1h30m, 2d, 1w."""
    _move(client, {"action": "advance", "seconds": by})


@clock.command("run-until-idle")
@click.pass_obj
def run_until_idle(client: Any) -> None:
    """Go on until no timer is left."""
    _move(client, {"action": "run-until-idle"})


@clock.command()
@click.pass_obj
def release(client: Any) -> None:
    """Be real time again."""
    _move(client, {"action": "release"})


def _move(client: Any, body: dict[str, Any]) -> None:
    _show(client.call("POST", "/_sandyard/clock", body, seconds=MOVE_SECONDS))


def _show(view: dict[str, Any]) -> None:
    steps = f", {view['steps']} moments at which something was due" if view["steps"] else ""
    click.echo(f"{view['now']} ({view['mode']}{steps})")
