"""Events for the sockets of an organization, from whatever replica something happened on."""

from typing import Self

import msgspec
import structlog

from sandyard.bus import Bus, BusError

CHANNEL_EVENTS = "events"
"""Every change, for the event sockets of every replica. Payload: `Event` as JSON."""

log = structlog.get_logger()


class Event(msgspec.Struct, frozen=True):
    """One event for the sockets of one organization."""

    name: str
    """Its first word says what `item` is: `sandbox.created`, `volume.state.updated` ..."""
    organization_id: str
    item: msgspec.Raw
    """What clients see of it; of a sandbox with an empty `toolboxProxyUrl`: each socket has its own."""
    old: str | None = None
    new: str | None = None

    @classmethod
    def of(cls, name: str, organization_id: str, item: object, old: str | None = None, new: str | None = None) -> Self:
        """With the item as JSON."""
        return cls(name, organization_id, msgspec.Raw(msgspec.json.encode(item)), old, new)

    @property
    def subject(self) -> str:
        """`sandbox`, `snapshot` or `volume`."""
        return self.name.partition(".")[0]


class Teller:
    """Publishes after the commit. What gets lost costs time, nothing else."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def tell(self, *events: Event) -> None:
        """Let every replica push these, in this order."""
        for event in events:
            await self._publish(CHANNEL_EVENTS, msgspec.json.encode(event))

    async def hint(self, channel: str, text: str) -> None:
        """Say something on a channel of the wire."""
        await self._publish(channel, text.encode())

    async def _publish(self, channel: str, payload: bytes) -> None:
        try:
            await self._bus.publish(channel, payload)
        except BusError as error:
            log.warning("hint_lost", channel=channel, error=str(error))
