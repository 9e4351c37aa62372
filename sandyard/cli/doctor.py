"""`sandyard doctor`: what this machine can do for Sandyard, and what to do where it cannot."""

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from sandyard_runner.runtime.probes import probe_docker, probe_namespaces, probe_network

from sandyard.cli.options import ALL, settings_of, settings_options
from sandyard.keeping import is_held, read_running
from sandyard.serving import listen_tcp
from sandyard.settings import Settings

LEAST_FREE_BYTES = 2 << 30


class Finding(StrEnum):
    """How a check came out."""

    GOOD = "ok"
    LIMITED = "limited"
    BAD = "missing"


STYLES = {Finding.GOOD: "green", Finding.LIMITED: "yellow", Finding.BAD: "red"}


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report."""

    name: str
    finding: Finding
    detail: str
    advice: str = ""


@click.command()
@settings_options(*ALL)
def doctor(**options: Any) -> None:
    """Check the engine, namespaces, network, port and disk. Exits with 1 when no runtime can be used."""
    settings = settings_of(**options)
    checks = [
        check for examine in (_python, _docker, _namespaces, _network, _port, _disk) for check in examine(settings)
    ]
    table = Table(box=None, pad_edge=False)
    for heading in ("CHECK", "", "FOUND", "WHAT TO DO"):
        table.add_column(heading)
    for check in checks:
        table.add_row(check.name, f"[{STYLES[check.finding]}]{check.finding}[/]", check.detail, check.advice)
    Console().print(table)
    usable = {check.name for check in checks if check.finding is not Finding.BAD}
    if not usable & {"docker", "namespaces"}:
        click.echo("No runtime can be used; `--isolation none` runs sandboxes as plain processes, without protection.")
        sys.exit(1)


def _python(_: Settings) -> Iterator[Check]:
    yield Check("python", Finding.GOOD, sys.version.split()[0])


def _docker(_: Settings) -> Iterator[Check]:
    probe = probe_docker()
    advice = "" if probe.works else "install and start Docker, or use `--runtime local`"
    yield Check("docker", Finding.GOOD if probe.works else Finding.BAD, probe.detail, advice)


def _namespaces(_: Settings) -> Iterator[Check]:
    probe = probe_namespaces()
    advice = "" if probe.works else "allow user namespaces (sysctl kernel.unprivileged_userns_clone=1), or run as root"
    yield Check("namespaces", Finding.GOOD if probe.works else Finding.BAD, probe.detail, advice)


def _network(_: Settings) -> Iterator[Check]:
    probe = probe_network()
    advice = "" if probe.works else "install passt or slirp4netns; until then local sandboxes have loopback only"
    yield Check("network", Finding.GOOD if probe.works else Finding.LIMITED, probe.detail, advice)


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
