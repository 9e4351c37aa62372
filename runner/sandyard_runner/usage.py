"""What sandboxes used of their machine: a sample a minute of each that runs, kept in memory for half a day."""

import asyncio
from array import array
from collections.abc import Sequence

import msgspec
import structlog

from sandyard.clock import Clock
from sandyard_runner.door_http import ask_json
from sandyard_runner.errors import DaemonUnreachable
from sandyard_runner.registry import Registry
from sandyard_runner.wire import UsageSample

PERIOD_SECONDS = 60.0
LOOK_SECONDS = 5.0
"""How long the first sample of a sandbox may take: clients ask for what was, so one of now comes too late."""
KEPT_SAMPLES = 720
ANSWER_SECONDS = 2.0
"""One that does not answer, such as a paused one, has no sample for that minute."""
AT_ONCE = 8
WIDTH = len(UsageSample.__struct_fields__)

log = structlog.get_logger(__name__)


class Usage:
    """Asks the daemons and remembers. Numbers in flat arrays: as objects, those of one sandbox would be 200 KB."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock
        self._kept: dict[str, array[float]] = {}

    async def run(self) -> None:
        """A sample of each running sandbox a minute, until cancelled."""
        while True:
            await self._clock.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """A sample of each running sandbox whose last is a minute old; who has none that is kept is forgotten."""
        turns = asyncio.Semaphore(AT_ONCE)

        async def take(sandbox_id: str) -> None:
            async with turns:
                await self._take(sandbox_id)

        now = self._clock.now().timestamp()
        due = [each for each in self._registry.running if now - self._last(each) >= PERIOD_SECONDS]
        await asyncio.gather(*(take(sandbox_id) for sandbox_id in due))
        oldest = now - KEPT_SAMPLES * PERIOD_SECONDS
        for sandbox_id in [each for each, rows in self._kept.items() if rows[-WIDTH] < oldest]:
            del self._kept[sandbox_id]

    def of(self, sandbox_id: str) -> Sequence[UsageSample]:
        """Its samples, oldest first."""
        rows = self._kept.get(sandbox_id, array("d"))
        return [UsageSample(*rows[start : start + WIDTH]) for start in range(0, len(rows), WIDTH)]

    def _last(self, sandbox_id: str) -> float:
        """When its last sample was, Unix seconds; 0 is never."""
        rows = self._kept.get(sandbox_id)
        return rows[-WIDTH] if rows else 0.0

    async def _take(self, sandbox_id: str) -> None:
        door = self._registry.find_door(sandbox_id)
        if door is None:
            return
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                _, told = await ask_json(door, "/system/metrics")
            sample = UsageSample(
                at=self._clock.now().timestamp(),
                cpu_percent=float(told["cpuUsedPct"]),
                cpu_limit=float(told["cpuCount"]),
                memory=float(told["memUsed"]),
                memory_limit=float(told["memTotal"]),
                memory_cache=float(told["memCache"]),
                disk=float(told["diskUsed"]),
                disk_limit=float(told["diskTotal"]),
            )
        except (DaemonUnreachable, TimeoutError, KeyError, TypeError, ValueError) as error:
            log.debug("no_usage", sandbox_id=sandbox_id, reason=repr(error))
            return
        rows = self._kept.setdefault(sandbox_id, array("d"))
        rows.extend(msgspec.structs.astuple(sample))
        del rows[: -KEPT_SAMPLES * WIDTH]
