"""Options that several commands share, and the settings they come to."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from sandyard.settings import CHOICES, InvalidSetting, Settings, read_settings

Function = TypeVar("Function", bound=Callable[..., Any])

_OPTIONS: dict[str, Callable[[Any], Any]] = {
    "host": click.option("--host", help="Address to listen on  [default: 127.0.0.1]"),
    "port": click.option("--port", type=int, help="Port of the one origin; 0 takes a free one  [default: 3986]"),
    "ssh_port": click.option("--ssh-port", type=int, help="Port of the SSH gateway; 0 is off  [default: 2222]"),
    "data_dir": click.option(
        "--data-dir", type=click.Path(path_type=Path, file_okay=False), help="Where keys and sandboxes are kept"
    ),
    "runtime": click.option(
        "--runtime", type=click.Choice(CHOICES["runtime"]), help="What holds sandboxes  [default: auto]"
    ),
    "isolation": click.option(
        "--isolation",
        type=click.Choice(CHOICES["isolation"]),
        help="For the local runtime: `none` runs plain processes  [default: namespaces]",
    ),
    "network": click.option(
        "--network", type=click.Choice(CHOICES["network"]), help="For the local runtime  [default: auto]"
    ),
    "local_builds": click.option(
        "--local-builds",
        is_flag=True,
        default=None,
        help="For the local runtime: run the steps of Dockerfiles over this machine's system; FROM is ignored",
    ),
    "database_url": click.option("--database-url", help="SQLAlchemy URL  [default: SQLite in the data directory]"),
    "bus_url": click.option("--bus-url", help="memory:// or redis://host:port/0  [default: memory://]"),
}


def settings_options(*names: str) -> Callable[[Function], Function]:
    """Give a command the options of those settings; it reads them with `settings_of(...)`."""

    def decorate(function: Function) -> Function:
        for name in reversed(names):
            function = _OPTIONS[name](function)
        return function

    return decorate


def settings_of(**options: object) -> Settings:
    """The settings, with the command line's word last. Ends the command with a clear line where one is wrong."""
    try:
        settings = read_settings(None, **options)
    except InvalidSetting as error:
        raise click.UsageError(str(error)) from error
    return msgspec.structs.replace(settings, data_dir=settings.data_dir.expanduser().absolute())


ALL = (
    *("host", "port", "ssh_port", "data_dir", "runtime", "isolation", "network", "local_builds"),
    *("database_url", "bus_url"),
)
"""The options of everything that starts a whole Sandyard."""
