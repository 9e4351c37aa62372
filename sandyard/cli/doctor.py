"""`sandyard doctor`: what this machine can do for Sandyard, and what to do where it cannot."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table

from sandyard.cli.lifetime import run
from sandyard.cli.options import ALL, settings_of, settings_options
from sandyard.keeping import is_held, read_running
from sandyard.runtimes import open_runtime
from sandyard.serving import listen_tcp
from sandyard.settings import Settings
from sandyard_runner.errors import RunnerError
from sandyard_runner.wire import Capability

LEAST_FREE_BYTES = 2 << 30


class Finding(StrEnum):
    """How a check came out."""

    GOOD = "ok"
    LIMITED = "limited"
    BAD = "missing"


STYLES = {Finding.GOOD: "green", Finding.LIMITED: "yellow", Finding.BAD: "red"}


class Check(msgspec.Struct, frozen=True):
    """One line of the report."""

    name: str
    finding: Finding
    detail: str
    advice: str = ""


@click.command()
@settings_options(*ALL)
def doctor(**options: Any) -> None:
    """Check the runtimes, port and disk, and show what each runtime enforces. Exits with 1 when none can be used."""
    settings = settings_of(**options)
    runtimes = [run(_try(settings, name), log_level="error") for name in ("docker", "local")]
    checks = [_python(), *(tried.check for tried in runtimes), *_port(settings), *_disk(settings)]
    console = Console()
    console.print(_table(("CHECK", "", "FOUND", "WHAT TO DO"), map(_row, checks)))
    for tried in runtimes:
        if tried.capabilities:
            console.print(f"\nWhat the {tried.check.name} runtime holds")
            rows = ((row.name, str(row.enforcement), row.detail) for row in tried.capabilities)
            console.print(_table(("", "", ""), rows))
    if not any(tried.capabilities for tried in runtimes):
        click.echo("No runtime can be used. `--isolation none` runs sandboxes as plain processes, without protection.")
        sys.exit(1)


class _Tried(msgspec.Struct, frozen=True):
    """What came of opening a runtime."""

    check: Check
    capabilities: Sequence[Capability] = ()


ADVICE = {
    "docker": "install and start Docker, or set DOCKER_HOST; else use `--runtime local`",
    "local": "allow user namespaces (sysctl kernel.unprivileged_userns_clone=1) or run as root",
}


async def _try(settings: Settings, name: str) -> _Tried:
    """Open the runtime in a directory of its own, so that nothing of a running Sandyard is touched."""
    with tempfile.TemporaryDirectory(prefix="sandyard-doctor-") as own:
        trial = msgspec.structs.replace(settings, runtime=name, data_dir=Path(own), doors_dir=None)
        try:
            async with open_runtime(trial, keep_running=False) as runtime:
                found = f"works ({settings.isolation})" if name == "local" else "the engine answers"
                return _Tried(Check(name, Finding.GOOD, found), runtime.capabilities())
        except RunnerError as error:
            return _Tried(Check(name, Finding.BAD, error.message, ADVICE[name]))


def _table(headings: Iterable[str], rows: Iterable[tuple[str, ...]]) -> Table:
    table = Table(*headings, box=None, pad_edge=False, show_header=any(headings))
    for row in rows:
        table.add_row(*row)
    return table


def _row(check: Check) -> tuple[str, ...]:
    return check.name, f"[{STYLES[check.finding]}]{check.finding}[/]", check.detail, check.advice


def _python() -> Check:
    return Check("python", Finding.GOOD, sys.version.split()[0])


def _port(settings: Settings) -> Iterator[Check]:
    if is_held(settings.data_dir) and (running := read_running(settings.data_dir)):
        yield Check("port", Finding.GOOD, f"Sandyard is running at {running.url}")
        return
    try:
        listen_tcp(settings.host, settings.port).close()
    except OSError as error:
        yield Check("port", Finding.BAD, str(error), "end what uses it, or choose another with --port")
        return
    yield Check("port", Finding.GOOD, f"{settings.host}:{settings.port} is free")


def _disk(settings: Settings) -> Iterator[Check]:
    place = settings.data_dir
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    detail = f"{free / (1 << 30):.1f} GiB free for {settings.data_dir}"
    if not os.access(place, os.W_OK):
        yield Check("disk", Finding.BAD, f"{place} is not writable", "choose another with --data-dir")
    elif free < LEAST_FREE_BYTES:
        yield Check("disk", Finding.LIMITED, detail, "sandboxes need room: choose another with --data-dir")
    else:
        yield Check("disk", Finding.GOOD, detail)
