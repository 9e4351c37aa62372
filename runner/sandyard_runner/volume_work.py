"""Removing what was in volumes that were deleted: when a hint tells of one, and with every comparison."""

import asyncio

import structlog

from sandyard.bus.contract import Bus
from sandyard_api.jobs.client import ControlPlaneError, RunnerControlPlane
from sandyard_api.jobs.wire import CHANNEL_VOLUMES
from sandyard_runner.errors import RuntimeFailure
from sandyard_runner.runtime.contract import CanMount, Runtime

log = structlog.get_logger(__name__)


class VolumeWork:
    """Compares the volumes that have a folder here with those that are wanted."""

    def __init__(self, runtime: Runtime, control_plane: RunnerControlPlane) -> None:
        self._runtime = runtime
        self._control_plane = control_plane
        self._comparing = asyncio.Lock()

    async def remove_unwanted(self) -> None:
        """Remove the content of volumes that are not wanted any more. Raises `ControlPlaneError`."""
        if not isinstance(self._runtime, CanMount):
            return
        async with self._comparing:
            # First what is there: a volume that appears meanwhile is in the list.
            present = await self._runtime.volumes()
            if not present:
                return
            for volume_id in sorted(set(present) - set(await self._control_plane.wanted_volumes())):
                log.info("volume_removed", volume_id=volume_id)
                try:
                    await self._runtime.remove_volume(volume_id)
                except RuntimeFailure as failure:
                    log.error("volume_left_behind", volume_id=volume_id, reason=failure.message)

    async def listen(self, bus: Bus) -> None:
        """Remove at once what a hint tells of. Raises `BusError`."""
        async with bus.subscribe(CHANNEL_VOLUMES) as hints:
            async for _ in hints:
                try:
                    await self.remove_unwanted()
                except ControlPlaneError as error:
                    log.warning("volumes_not_compared", reason=str(error))
