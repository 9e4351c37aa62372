"""Telling the world of a change after its commit: waiting requests, proxies and event sockets."""

import msgspec

from sandyard.bus import Bus
from sandyard_api.events.telling import Event, Teller
from sandyard_api.jobs.wire import CHANNEL_ROUTES
from sandyard_api.sandboxes.models import Sandbox
from sandyard_api.sandboxes.moves import Move
from sandyard_api.sandboxes.schemas import full
from sandyard_api.sandboxes.states import SHOWN, Shown
from sandyard_api.wakeups import Wakeups

WARM = "warm-pools"
"""Key of hints that something in a warm pool changed."""
FAILED = (Shown.ERROR, Shown.BUILD_FAILED)


class Announcer:
    """Announces moves. Whatever gets lost costs time, nothing else."""

    def __init__(self, bus: Bus, changes: Wakeups, jobs: Wakeups) -> None:
        self._teller = Teller(bus)
        self._changes = changes
        self._jobs = jobs

    async def moved(self, *moves: Move | None) -> None:
        """Tell of moves whose transaction was committed."""
        for move in moves:
            if move is None:
                continue
            await self._changes.announce(move.row.id)
            await self._teller.hint(CHANNEL_ROUTES, move.row.id)
            if move.row.warm_pool_id is not None:
                await self._changes.announce(WARM)
            await self._teller.tell(*events_of(move))

    async def claimed(self, row: Sandbox) -> None:
        """Tell of one that became a user's: to clients it was started all along. *Source:* control-plane.md 17."""
        started = Shown.STARTED.value
        event = Event.of("sandbox.state.updated", row.organization_id, full(row, ""), started, started)
        await self._teller.hint(CHANNEL_ROUTES, row.id)
        await self._teller.tell(event)
        await self._changes.announce(WARM)

    async def route_changed(self, sandbox_id: str) -> None:
        """Tell that something beside the state changed, such as who may see it."""
        await self._teller.hint(CHANNEL_ROUTES, sandbox_id)

    async def progressed(self, sandbox_id: str) -> None:
        """Tell that its build log grew."""
        await self._changes.announce(sandbox_id)

    async def job_written(self, runner_key: str) -> None:
        """Tell the runner, or all of them, that there is work."""
        await self._jobs.announce(runner_key)


def events_of(move: Move) -> list[Event]:
    """The events that a move makes, in the order they are sent; none of what waits in a warm pool."""
    row = move.row
    if row.warm_pool_id is not None:
        return []
    sandbox = msgspec.Raw(msgspec.json.encode(full(row, "")))
    if move.before is None:
        return [Event("sandbox.created", row.organization_id, sandbox)]
    events = []
    old, new = SHOWN[move.before], SHOWN[row.observed, row.desired]
    if old is not new:
        if new in FAILED and row.error_reason:
            # The SDKs take nothing but the state from a change, and would raise without its reason; from this they take
            # the whole record.
            events.append(Event("sandbox.created", row.organization_id, sandbox))
        events.append(Event("sandbox.state.updated", row.organization_id, sandbox, old.value, new.value))
    if move.before[1] is not row.desired:
        events.append(
            Event(
                "sandbox.desired-state.updated", row.organization_id, sandbox, move.before[1].value, row.desired.value
            )
        )
    return events
