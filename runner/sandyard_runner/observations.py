"""What a runner saw, on its way to the control plane."""

import asyncio
from collections import deque

import structlog

from sandyard.clock import Clock
from sandyard_api.jobs.client import ControlPlane, ControlPlaneError, ControlPlaneRefused
from sandyard_api.jobs.wire import Observation
from sandyard_api.sandboxes.states import Observed

MAX_WAITING_OBSERVATIONS = 10_000
RETRY_SECONDS = 0.5

log = structlog.get_logger(__name__)


class Observations:
    """Observations on their way to the control plane: in order, kept while it is away."""

    def __init__(self, control_plane: ControlPlane, clock: Clock) -> None:
        self._control_plane = control_plane
        self._clock = clock
        self._waiting: deque[Observation] = deque(maxlen=MAX_WAITING_OBSERVATIONS)
        self._added = asyncio.Event()
        self._sending = asyncio.Lock()

    def add(self, sandbox_id: str, observed: Observed, reason: str) -> None:
        """Tell the control plane soon."""
        self._waiting.append(Observation(sandbox_id, observed, reason, self._clock.now()))
        self._added.set()

    def note(self, sandbox_id: str, text: str) -> None:
        """Have something written into the sandbox's history soon."""
        self._waiting.append(Observation(sandbox_id, Observed.STARTED, text, self._clock.now(), is_note=True))
        self._added.set()

    async def run(self) -> None:
        """Send what was added, until cancelled."""
        while True:
            await self._added.wait()
            try:
                await self.flush()
            except ControlPlaneError as error:
                log.warning("observations_delayed", waiting=len(self._waiting), reason=str(error))
                await self._clock.sleep(RETRY_SECONDS)

    async def flush(self) -> None:
        """Send everything now. Raises `ControlPlaneError`, and nothing is lost then."""
        async with self._sending:
            self._added.clear()
            batch = list(self._waiting)
            if not batch:
                return
            try:
                await self._control_plane.observe(batch)
            except ControlPlaneRefused as error:
                log.error("observations_refused", reason=str(error))
            except ControlPlaneError:
                self._added.set()
                raise
            for _ in batch:
                self._waiting.popleft()
