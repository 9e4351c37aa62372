"""Tells the control plane which sandboxes are in use, in batches: when a request begins, then while it lasts."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import structlog

from sandyard.clock import Clock
from sandyard_api.jobs.client import ControlPlane, ControlPlaneError

log = structlog.get_logger(__name__)

FLUSH_SECONDS = 1.0
REPEAT_SECONDS = 50.0
"""How often an open connection counts as activity again. *Source:* control-plane.md 22.3."""
MAX_WAITING = 10_000


class Activity:
    """Collects last uses; `run` delivers them."""

    def __init__(self, control_plane: ControlPlane, clock: Clock) -> None:
        self._control_plane = control_plane
        self._clock = clock
        self._waiting: dict[str, datetime] = {}
        self._open: Counter[str] = Counter()

    @contextmanager
    def using(self, sandbox_id: str, *, counts: bool = True) -> Iterator[None]:
        """The sandbox is in use within the block, unless the request asked not to be counted."""
        if not counts:
            yield
            return
        self._touch(sandbox_id)
        self._open[sandbox_id] += 1
        try:
            yield
        finally:
            self._open[sandbox_id] -= 1
            if not self._open[sandbox_id]:
                del self._open[sandbox_id]
            self._touch(sandbox_id)

    async def run(self) -> None:
        """Deliver for as long as the proxy runs."""
        repeat_at = self._clock.monotonic() + REPEAT_SECONDS
        while True:
            await self._clock.sleep(FLUSH_SECONDS)
            if self._clock.monotonic() >= repeat_at:
                repeat_at += REPEAT_SECONDS
                for sandbox_id in self._open:
                    self._touch(sandbox_id)
            await self.flush()

    async def flush(self) -> None:
        """Deliver now. What cannot be delivered is kept for the next time."""
        if not self._waiting:
            return
        batch, self._waiting = self._waiting, {}
        try:
            await self._control_plane.touch(batch)
        except ControlPlaneError as error:
            log.warning("activity_not_delivered", sandboxes=len(batch), error=str(error))
            if len(batch) <= MAX_WAITING:
                self._waiting = batch | self._waiting

    def _touch(self, sandbox_id: str) -> None:
        self._waiting[sandbox_id] = self._clock.now()
