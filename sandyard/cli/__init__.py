"""The `sandyard` command. Each command has a file of its own, imported only when it is called."""

from importlib import import_module

import click

from sandyard import __version__
from sandyard.starting import importing

COMMANDS = {
    "up": "sandyard.cli.up",
    "run": "sandyard.cli.run",
    "down": "sandyard.cli.down",
    "env": "sandyard.cli.env",
    "ls": "sandyard.cli.ls",
    "logs": "sandyard.cli.logs",
    "clock": "sandyard.cli.clock",
    "reset": "sandyard.cli.reset",
    "faults": "sandyard.cli.faults",
    "quirks": "sandyard.cli.quirks",
    "save": "sandyard.cli.save",
    "load": "sandyard.cli.load",
    "journal": "sandyard.cli.journal",
    "doctor": "sandyard.cli.doctor",
    "trust": "sandyard.cli.trust",
    "api": "sandyard.cli.parts",
    "runner": "sandyard.cli.parts",
    "proxy": "sandyard.cli.parts",
    "migrate": "sandyard.cli.migrate",
    "completion": "sandyard.cli.completion",
}
"""The module of each command; the command is the module's attribute of the same name."""


class _Lazy(click.Group):
    """Imports a command when it is asked for, so that `sandyard env` does not load a control plane."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        with importing():
            command: click.Command = getattr(import_module(module), cmd_name)
        return command


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sandyard")
def main() -> None:
    """A sandbox platform for one laptop, compatible with the Daytona API."""
