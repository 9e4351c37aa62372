"""The use of a sandbox over time. The runner that holds it keeps the samples; nothing of them is in the database."""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

from sandyard_api.database import Database
from sandyard_api.errors import Unavailable
from sandyard_api.metrics.schemas import DataPoint, Series
from sandyard_api.runners.asking import RunnerUnreachable
from sandyard_api.runners.service import Runners
from sandyard_api.sandboxes.service import find
from sandyard_runner.wire import UsageSample

NAMES: Mapping[str, str] = {
    "daytona.sandbox.cpu.utilization": "cpu_percent",
    "daytona.sandbox.cpu.limit": "cpu_limit",
    "daytona.sandbox.memory.usage": "memory",
    "daytona.sandbox.memory.limit": "memory_limit",
    "daytona.sandbox.memory.cache": "memory_cache",
    "daytona.sandbox.filesystem.usage": "disk",
    "daytona.sandbox.filesystem.total": "disk_limit",
}
"""What the SDKs call the fields of a sample. *Source:* sdk-wire.md 3.1, and the names that the SDKs send."""


class UsageSource(Protocol):
    """Where samples come from."""

    async def usage(self, runner_url: str, sandbox_id: str) -> Sequence[UsageSample]:
        """What a sandbox used, oldest first. Raises `RunnerUnreachable`."""


class Metrics:
    """Reads; nothing here changes anything."""

    def __init__(self, database: Database, runners: Runners, source: UsageSource) -> None:
        self._database = database
        self._runners = runners
        self._source = source

    async def series(
        self, organization_id: str, key: str, names: Collection[str], *, since: datetime, until: datetime
    ) -> list[Series]:
        """A series for each known name; for every one without names. Raises `NotFound` and `Unavailable`."""
        async with self._database.reading() as db:
            row = await find(db, organization_id, key)
            url = await self._runners.url(db, row.runner_id)
        samples = await self._samples(url, row.id)
        within = [(at, each) for each in samples if since <= (at := datetime.fromtimestamp(each.at, UTC)) <= until]
        return [
            Series(name, [DataPoint(at, getattr(sample, field)) for at, sample in within])
            for name, field in NAMES.items()
            if not names or name in names
        ]

    async def _samples(self, url: str | None, sandbox_id: str) -> Sequence[UsageSample]:
        if url is None:
            return ()  # nobody ever held it
        try:
            return await self._source.usage(url, sandbox_id)
        except RunnerUnreachable as error:
            raise Unavailable("The runner that holds this Sandbox does not answer. Please try again.") from error
