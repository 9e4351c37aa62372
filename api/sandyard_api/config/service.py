"""Whether the parts that the control plane stands on answer."""

import asyncio

import structlog
from sqlalchemy.exc import SQLAlchemyError

from sandyard.bus import Bus, BusError
from sandyard_api.config.schemas import PartHealth, Readiness
from sandyard_api.database import Database

PROBE_SECONDS = 3.0

log = structlog.get_logger()


class Health:
    """Probes database and bus."""

    def __init__(self, database: Database, bus: Bus) -> None:
        self._probes = {"database": database.ping, "bus": bus.ping}

    async def probe(self) -> Readiness:
        """Ask every part; one that does not answer in time counts as down."""
        found: dict[str, PartHealth] = {}
        for name, ping in self._probes.items():
            try:
                async with asyncio.timeout(PROBE_SECONDS):
                    await ping()
                found[name] = PartHealth("up")
            except (SQLAlchemyError, BusError, OSError, TimeoutError) as error:
                log.warning("part_down", part=name, error=str(error))
                found[name] = PartHealth("down")
        down = {name: part for name, part in found.items() if part.status == "down"}
        return Readiness(
            status="error" if down else "ok",
            info={name: part for name, part in found.items() if name not in down},
            error=down,
            details=found,
        )
