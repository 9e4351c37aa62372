"""Telling the world of a change after its commit: waiting requests, proxies and event sockets."""

from dataclasses import dataclass

import msgspec
import structlog

from sandyard.bus import Bus, BusError
from sandyard_api.jobs.wire import CHANNEL_ROUTES
from sandyard_api.sandboxes.models import Sandbox
from sandyard_api.sandboxes.moves import Move
from sandyard_api.sandboxes.schemas import full
from sandyard_api.sandboxes.states import SHOWN, Shown
from sandyard_api.wakeups import Wakeups

CHANNEL_EVENTS = "events"
"""Every change, for the event sockets of every replica. Payload: `SandboxEvent` as JSON."""

WARM = "warm-pools"
"""Key of hints that something in a warm pool changed."""

FAILED = (Shown.ERROR, Shown.BUILD_FAILED)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class SandboxEvent:
    """One event for the sockets of one organization."""

    name: str
    organization_id: str
    sandbox: msgspec.Raw
    """The full sandbox, with an empty `toolboxProxyUrl`: each socket has its own."""
    old: str | None = None
    new: str | None = None


class Announcer:
    """Announces moves. Whatever gets lost costs time, nothing else."""

    def __init__(self, bus: Bus, changes: Wakeups, jobs: Wakeups) -> None:
        self._bus = bus
        self._changes = changes
        self._jobs = jobs

    async def moved(self, *moves: Move | None) -> None:
        """Tell of moves whose transaction was committed."""
        for move in moves:
            if move is None:
                continue
            await self._changes.announce(move.row.id)
            await self._publish(CHANNEL_ROUTES, move.row.id.encode())
            if move.row.warm_pool_id is not None:
                await self._changes.announce(WARM)
            for event in events_of(move):
                await self._publish(CHANNEL_EVENTS, msgspec.json.encode(event))

    async def claimed(self, row: Sandbox) -> None:
        """Tell of one that became a user's: to clients it was started all along. *Source:* control-plane.md 17."""
        started = Shown.STARTED.value
        sandbox = msgspec.Raw(msgspec.json.encode(full(row, "")))
        event = SandboxEvent("sandbox.state.updated", row.organization_id, sandbox, started, started)
        await self._publish(CHANNEL_ROUTES, row.id.encode())
        await self._publish(CHANNEL_EVENTS, msgspec.json.encode(event))
        await self._changes.announce(WARM)

    async def route_changed(self, sandbox_id: str) -> None:
        """Tell that something beside the state changed, such as who may see it."""
        await self._publish(CHANNEL_ROUTES, sandbox_id.encode())

    async def progressed(self, sandbox_id: str) -> None:
        """Tell that its build log grew."""
        await self._changes.announce(sandbox_id)

    async def job_written(self, runner_key: str) -> None:
        """Tell the runner, or all of them, that there is work."""
        await self._jobs.announce(runner_key)

    async def _publish(self, channel: str, payload: bytes) -> None:
        try:
            await self._bus.publish(channel, payload)
        except BusError as error:
            log.warning("hint_lost", channel=channel, error=str(error))


def events_of(move: Move) -> list[SandboxEvent]:
    """The events that a move makes, in the order they are sent; none of what waits in a warm pool."""
    row = move.row
    if row.warm_pool_id is not None:
        return []
    sandbox = msgspec.Raw(msgspec.json.encode(full(row, "")))
    if move.before is None:
        return [SandboxEvent("sandbox.created", row.organization_id, sandbox)]
    events = []
    old, new = SHOWN[move.before], SHOWN[row.observed, row.desired]
    if old is not new:
        if new in FAILED and row.error_reason:
            # The SDKs take nothing but the state from a change, and would raise without its reason; from this they take
            # the whole record.
            events.append(SandboxEvent("sandbox.created", row.organization_id, sandbox))
        events.append(SandboxEvent("sandbox.state.updated", row.organization_id, sandbox, old.value, new.value))
    if move.before[1] is not row.desired:
        events.append(
            SandboxEvent(
                "sandbox.desired-state.updated", row.organization_id, sandbox, move.before[1].value, row.desired.value
            )
        )
    return events
