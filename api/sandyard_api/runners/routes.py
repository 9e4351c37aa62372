"""Runners under `/_sandyard/`: who is there and what their runtimes enforce."""

from datetime import datetime
from typing import Any

import msgspec
from litestar import get
from litestar.di import NamedDependency as Given

from sandyard_api.routing import Slice
from sandyard_api.runners.service import Runners


class RunnerView(msgspec.Struct, rename="camel"):
    """One runner and its table of capabilities."""

    id: str
    runtime: str
    alive: bool
    last_seen_at: datetime
    capabilities: dict[str, Any]


class RunnerList(msgspec.Struct):
    """Every runner."""

    runners: list[RunnerView]


@get("/capabilities")
async def capabilities(runners: Given[Runners]) -> RunnerList:
    """What each runner's runtime enforces and what not, as its heartbeat told."""
    return RunnerList(
        [
            RunnerView(row.id, row.runtime, runners.is_alive(row), row.last_seen_at, row.capabilities)
            for row in await runners.all()
        ]
    )


SLICE = Slice("/_sandyard", [capabilities])
