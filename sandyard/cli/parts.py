"""`sandyard api`, `runner` and `proxy`: the three parts as processes of their own (the distributed form)."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import click

from sandyard.cli.lifetime import run, say, told_to_end
from sandyard.cli.options import settings_of, settings_options
from sandyard.settings import Settings
from sandyard.wiring import open_api, open_proxy_process, open_runner_process
from sandyard_runner.app import Leave


@click.command()
@settings_options("host", "port", "data_dir", "database_url", "bus_url")
def api(**options: Any) -> None:
    """Run the control plane alone. The internal routes are served on SANDYARD_INTERNAL_LISTEN."""
    _serve("api", settings_of(**options), open_api)


@click.command()
@settings_options("data_dir", "runtime", "isolation", "network", "local_builds", "bus_url")
@click.option(
    "--on-exit",
    type=click.Choice([leave.value for leave in Leave]),
    default=Leave.RUNNING.value,
    show_default=True,
    envvar="SANDYARD_ON_EXIT",
    help="What becomes of the sandboxes when the runner is told to end.",
)
def runner(on_exit: str, **options: Any) -> None:
    """Run one runner alone, against SANDYARD_INTERNAL_URL."""
    leave = Leave(on_exit)
    _serve("runner", settings_of(**options), lambda settings: open_runner_process(settings, leave=leave))


@click.command()
@settings_options("host", "port", "data_dir", "bus_url")
def proxy(**options: Any) -> None:
    """Run one proxy alone: the public origin of a distributed Sandyard."""
    _serve("proxy", settings_of(**options), open_proxy_process)


def _serve(name: str, settings: Settings, opening: Callable[[Settings], AbstractAsyncContextManager[None]]) -> None:
    async def serve() -> None:
        async with told_to_end() as ending, opening(settings):
            say(f"sandyard {name} is ready")
            await ending.wait()

    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    run(serve(), log_level=settings.log_level)
