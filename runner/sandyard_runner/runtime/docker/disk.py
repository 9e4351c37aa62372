"""Disk use of containers, watched: most storage drivers cannot limit it, so what is over its limit is told once.

*Source:* `GET /containers/json?size=1` of the Docker Engine API v1.41. It adds up each container's own layer, which is
why it is asked for seldom.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog

from sandyard_runner.errors import RuntimeFailure
from sandyard_runner.runtime.docker.engine import Engine
from sandyard_runner.runtime.docker.options import LABEL_SANDBOX

WATCH_SECONDS = 60.0
GIB = 1 << 30

log = structlog.get_logger(__name__)

Tell = Callable[[str, str], None]
"""Called with a sandbox and what there is to say of it."""


class DiskWatch:
    """Looks at every container of an installation, and tells of each that came over its limit since the last look."""

    def __init__(self, engine: Engine, labels: Sequence[str], tell: Tell) -> None:
        self._engine = engine
        self._labels = list(labels)
        self._tell = tell
        self._limits: dict[str, int] = {}
        self._over: set[str] = set()

    def limit(self, sandbox_id: str, gib: int) -> None:
        """Watch a sandbox against that many GiB from now on."""
        self._limits[sandbox_id] = gib

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                await self.look()
            except RuntimeFailure as failure:
                log.warning("disk_not_watched", reason=failure.message)

    async def look(self) -> None:
        """Compare once. Raises `RuntimeFailure`."""
        if not self._limits:
            return
        found = await self._engine.call(
            "ask for disk use", lambda api: api.containers(all=True, size=True, filters={"label": self._labels})
        )
        used = {item["Labels"][LABEL_SANDBOX]: _bytes(item) for item in found}
        for sandbox_id in self._limits.keys() - used.keys():
            del self._limits[sandbox_id]
        over = {each for each, limit in self._limits.items() if used[each] > limit * GIB}
        for sandbox_id in over - self._over:
            gib, limit = used[sandbox_id] / GIB, self._limits[sandbox_id]
            self._tell(sandbox_id, f"uses {gib:.1f} GiB of disk, more than its {limit} GiB; nothing was stopped")
        self._over = over


def _bytes(listed: Mapping[str, Any]) -> int:
    """Of the container's own layer; absent while it is being made."""
    return int(listed.get("SizeRw") or 0)
