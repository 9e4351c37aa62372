"""A clock whose wall time can be frozen, set and moved, for tests of what takes days.

Only what users see follows it: timestamps, timers, expiries. Heartbeats, leases, deadlines and pauses between attempts
are about this machine and go by `machine`; a frozen clock would otherwise stop the work that it waits for.
"""

from datetime import datetime, timedelta

import msgspec

from sandyard.clock import Clock, SystemClock


class ClockState(msgspec.Struct, frozen=True):
    """Where virtual time stands: `frozen_at`, or `offset_seconds` away from the machine's time."""

    frozen_at: datetime | None = None
    offset_seconds: float = 0.0

    @property
    def mode(self) -> str:
        """`real`, `shifted` or `frozen`."""
        if self.frozen_at is not None:
            return "frozen"
        return "shifted" if self.offset_seconds else "real"


class VirtualClock:
    """`Clock` whose `now` follows `state`; `monotonic` and `sleep` stay the machine's."""

    def __init__(self, machine: Clock | None = None) -> None:
        self.machine = machine or SystemClock()
        self.state = ClockState()

    def now(self) -> datetime:
        return self.of_machine(self.machine.now())

    def monotonic(self) -> float:
        return self.machine.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self.machine.sleep(seconds)

    def of_machine(self, at: datetime) -> datetime:
        """A moment of the machine's time as virtual time."""
        return self.state.frozen_at or at + timedelta(seconds=self.state.offset_seconds)

    def freeze(self, at: datetime | None = None) -> None:
        """Stand still, now or at that moment."""
        self.state = ClockState(frozen_at=at or self.now())

    def run_from(self, at: datetime) -> None:
        """Go on from that moment at the machine's speed."""
        self.state = ClockState(offset_seconds=(at - self.machine.now()).total_seconds())

    def release(self) -> None:
        """Be the machine's time again."""
        self.state = ClockState()


def machine_of(clock: Clock) -> Clock:
    """The clock of this machine behind `clock`: for leases, heartbeats and everything else that no user sees."""
    return clock.machine if isinstance(clock, VirtualClock) else clock


def seen_at(clock: Clock, at: datetime) -> datetime:
    """What another part of ours stamped with the machine's time, as time of `clock`; never in its future."""
    now = clock.now()
    return min(clock.of_machine(at) if isinstance(clock, VirtualClock) else at, now)
