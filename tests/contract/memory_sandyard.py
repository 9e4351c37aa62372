"""A whole Sandyard over the memory runtime: for tests that ask the control plane thousands of things.

Run as a program it does what `sandyard up` does, on a free port, and prints the same two lines.
"""

import argparse
import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import click
from aiohttp import web

from sandyard.cli.lifetime import run, told_to_end
from sandyard.keeping import hold
from sandyard.settings import Settings
from sandyard.wiring import open_embedded
from sandyard_api.jobs.wire import SandboxSpec
from sandyard_runner.app import Leave
from sandyard_runner.runtime.memory import MemoryRuntime

KEEP_ALIVE_SECONDS = 5.0
ENDS = web.AppKey("ENDS", dict[str, asyncio.Event])
"""For each door of a running sandbox what is set when that ends: its daemon's streams end then."""


class DooredRuntime(MemoryRuntime):
    """Sandboxes without processes, behind whose doors one server plays all the daemons; networks hold every rule."""

    def __init__(self, doors_dir: Path, daemons: web.AppRunner) -> None:
        super().__init__(doors_dir)
        self._daemons = daemons
        self._sites: dict[str, web.UnixSite] = {}
        self._ends: dict[str, asyncio.Event] = daemons.app[ENDS]

    async def start(self, spec: SandboxSpec) -> None:
        await super().start(spec)
        if spec.sandbox_id not in self._sites:
            path = self.door(spec.sandbox_id)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            self._ends[str(path)] = asyncio.Event()
            self._sites[spec.sandbox_id] = site = web.UnixSite(self._daemons, path)
            await site.start()

    async def stop(self, sandbox_id: str, *, force: bool = False, grace_seconds: float = 5.0) -> None:
        await super().stop(sandbox_id, force=force, grace_seconds=grace_seconds)
        await self._close(sandbox_id)

    async def remove(self, sandbox_id: str) -> None:
        await super().remove(sandbox_id)
        await self._close(sandbox_id)

    async def hold_network(self, spec: SandboxSpec) -> Mapping[str, str]:
        self._called("hold_network", spec.sandbox_id)
        return {}

    async def _close(self, sandbox_id: str) -> None:
        if site := self._sites.pop(sandbox_id, None):
            self._ends.pop(str(self.door(sandbox_id))).set()
            await site.stop()


async def answer(_request: web.Request) -> web.Response:
    """What every daemon says to everything."""
    return web.json_response({"version": "played", "last_event": 0})


async def tell_events(request: web.Request) -> web.StreamResponse:
    """A daemon in which nothing happens, until its sandbox ends."""
    assert request.transport is not None
    end = request.app[ENDS].get(request.transport.get_extra_info("sockname"))
    stream = web.StreamResponse()
    await stream.prepare(request)
    with contextlib.suppress(ConnectionError):
        while end is not None and not end.is_set():
            await stream.write(b"\n")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                    await end.wait()
    return stream


@asynccontextmanager
async def open_runtime(doors_dir: Path) -> AsyncIterator[DooredRuntime]:
    """The runtime and its daemons, which end with the block."""
    app = web.Application()
    app[ENDS] = {}
    app.router.add_get("/_daemon/events", tell_events)
    app.router.add_route("*", "/{path:.*}", answer)
    daemons = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
    await daemons.setup()
    try:
        yield DooredRuntime(doors_dir, daemons)
    finally:
        await daemons.cleanup()


async def up(settings: Settings) -> None:
    """Serve until SIGTERM."""
    with hold(settings.data_dir):
        async with (
            told_to_end() as ending,
            open_runtime(settings.resolved_doors_dir()) as runtime,
            open_embedded(settings, leave=Leave.REMOVE, runtime=runtime) as running,
        ):
            click.echo(f"export DAYTONA_API_URL={running.url}/api")
            click.echo(f"export DAYTONA_API_KEY={running.api_key}")
            await ending.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--database-url")
    given = parser.parse_args()
    run(
        up(Settings(port=0, data_dir=given.data_dir, database_url=given.database_url)),
        log_level="warning",
    )
