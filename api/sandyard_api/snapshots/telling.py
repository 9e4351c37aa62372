"""Telling of snapshots after the commit: whoever waits for one, and the event sockets."""

from sandyard.bus import Bus
from sandyard_api.events.telling import Event, Teller
from sandyard_api.snapshots.models import Snapshot
from sandyard_api.snapshots.schemas import snapshot_dto
from sandyard_api.snapshots.states import SnapshotState
from sandyard_api.wakeups import Wakeups


class SnapshotTeller:
    """General snapshots are nobody's: of them only those learn who wait."""

    def __init__(self, bus: Bus, changes: Wakeups) -> None:
        self._teller = Teller(bus)
        self._changes = changes

    async def created(self, row: Snapshot) -> None:
        """It is there."""
        await self._tell("snapshot.created", row)

    async def moved(self, row: Snapshot, old: SnapshotState) -> None:
        """It is in another state than `old`."""
        if row.state is old:
            await self._changes.announce(row.id)
        else:
            await self._tell("snapshot.state.updated", row, old.value, row.state.value)

    async def removed(self, row: Snapshot) -> None:
        """It was deleted."""
        await self._tell("snapshot.removed", row)

    async def _tell(self, name: str, row: Snapshot, old: str | None = None, new: str | None = None) -> None:
        await self._changes.announce(row.id)
        if row.organization_id is not None:
            await self._teller.tell(Event.of(name, row.organization_id, snapshot_dto(row), old, new))
