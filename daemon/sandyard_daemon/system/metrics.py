"""Processor, memory and disk use against the sandbox's limits; measured when somebody asks, never in between."""

import asyncio
import math
import os
import time
from typing import NamedTuple

from sandyard_daemon.system.groups import Groups

WINDOW_SECONDS = 0.1
"""The shortest time over which processor use is averaged."""
STALE_SECONDS = 10.0
"""An earlier measurement older than this says nothing of now: a new window is opened, and waited for."""


class Metrics(NamedTuple):
    """One look. Sizes in bytes."""

    cpu_limit: float
    """Processors."""
    cpu_used_percent: float
    """Of the limit, 0 to 100."""
    memory_total: int
    memory_used: int
    memory_cache: int
    disk_total: int
    disk_used: int
    disk_free: int


class Meter:
    """Remembers the last look at the processor's clock, so that the next has something to compare with."""

    def __init__(self, groups: Groups | None = None) -> None:
        self._groups = groups or Groups.of_this_process()
        self._measuring = asyncio.Lock()
        self._before: tuple[float, float] | None = None
        self._percent = 0.0

    async def look(self) -> Metrics:
        """What is used now. Takes `WINDOW_SECONDS` at the most."""
        limit = self._cpu_limit()
        percent = await self._cpu_percent(limit)
        total, used, cache = self._memory()
        disk = os.statvfs("/")
        size = disk.f_frsize
        return Metrics(
            limit,
            percent,
            total,
            used,
            cache,
            disk.f_blocks * size,
            (disk.f_blocks - disk.f_bfree) * size,
            disk.f_bavail * size,
        )

    def _cpu_limit(self) -> float:
        processors = float(len(os.sched_getaffinity(0)))
        return min(self._groups.cpu_limit() or processors, processors)

    async def _cpu_percent(self, limit: float) -> float:
        async with self._measuring:
            if self._before is None or time.monotonic() - self._before[0] > STALE_SECONDS:
                self._before = self._clock()
                await asyncio.sleep(WINDOW_SECONDS)
            now = self._clock()
            seconds = now[0] - self._before[0]
            if seconds >= WINDOW_SECONDS:
                share = (now[1] - self._before[1]) / (seconds * limit)
                self._percent = round(min(1.0, max(0.0, share)) * 100, 2)
                self._before = now
            return self._percent

    def _clock(self) -> tuple[float, float]:
        used = self._groups.cpu_used()
        return time.monotonic(), _machine_seconds() if used is None else used

    def _memory(self) -> tuple[int, int, int]:
        """Total, used, cache: the group's where it has a limit, else the machine's."""
        machine, used, cache = _machine_memory()
        limit, own = self._groups.memory_limit(), self._groups.memory_used()
        if own is None or limit is None or limit >= machine:
            return machine, used, cache
        return limit, min(own[0], limit), own[1]


def whole_processors(limit: float) -> int:
    """As many as the limit amounts to, at least one."""
    return max(1, math.ceil(limit - 1e-9))


def _machine_seconds() -> float:
    """Busy time of all processors."""
    with open("/proc/stat", encoding="ascii") as file:
        fields = [int(word) for word in file.readline().split()[1:9]]
    idle = fields[3] + fields[4]
    return (sum(fields) - idle) / os.sysconf("SC_CLK_TCK")


def _machine_memory() -> tuple[int, int, int]:
    values: dict[str, int] = {}
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            name, _, rest = line.partition(":")
            values[name] = int(rest.split()[0]) << 10
    total = values["MemTotal"]
    return total, total - values.get("MemAvailable", values["MemFree"]), values.get("Cached", 0)
