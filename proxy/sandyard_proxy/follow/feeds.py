"""What tells the followers of a log: the bus, which may lose some, and the relay, whose open request is the lease."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

import msgspec
import structlog

from sandyard.bus import Bus, BusError
from sandyard_daemon.wire import FrameDecoder
from sandyard_proxy.errors import DoorUnreachable, ProxyError
from sandyard_proxy.follow.hub import LogHub
from sandyard_proxy.follow.source import LogRefused, LogSource
from sandyard_runner.client import RunnerUnreachable
from sandyard_runner.wire import RelayTick

log = structlog.get_logger(__name__)

OpenRelay = Callable[[], Awaitable[AsyncGenerator[RelayTick, None]]]
"""Opens the relay of one command anew. Raises a `ProxyError` when its sandbox does not run any more."""

BUS_PAUSE_SECONDS = 1.0


class BusAndRelay(msgspec.Struct, frozen=True):
    """The `Feeds` of one command."""

    bus: Bus
    channel: str
    source: LogSource
    open_relay: OpenRelay

    async def listen(self, hub: LogHub) -> None:
        """Hand over what the bus brings; without a bus the ticks alone carry the follower on, from the file."""
        while True:
            try:
                async with self.bus.subscribe(self.channel) as subscription:
                    async for message in subscription:
                        _note_frames(hub, message.payload)
            except BusError as error:
                log.warning("log_bus_unavailable", channel=self.channel, error=str(error))
                await asyncio.sleep(BUS_PAUSE_SECONDS)

    async def hold_lease(self, hub: LogHub) -> None:
        """Keep a relay request open until the log is over; open it again when it breaks."""
        failing_since: float | None = None
        patience = hub.patience
        pause = patience.retry
        while True:
            before = time.monotonic()
            reason, ticked = await self._relay_once(hub)
            if hub.is_over:
                return
            now = time.monotonic()
            if ticked:
                failing_since, pause = None, patience.retry
            failing_since = failing_since if failing_since is not None else before
            if now - failing_since > patience.give_up or not await _still_there(self.source):
                hub.note_lost(reason)
                return
            hub.stats.leases_renewed += 1
            await asyncio.sleep(pause)
            pause = min(pause * 2, patience.longest_retry)

    async def _relay_once(self, hub: LogHub) -> tuple[str, bool]:
        """One relay request, to its end: why it ended, and whether it told anything."""
        ticked = False
        try:
            async with aclosing(await self.open_relay()) as ticks:
                async for tick in ticks:
                    if tick.lost is not None:
                        return tick.lost, ticked
                    ticked = True
                    hub.note_tick(tick)
                    if hub.is_over:
                        return "", ticked
        except RunnerUnreachable as error:
            return f"the sandbox's runner does not answer: {error.message}", ticked
        except ProxyError as error:
            hub.note_lost(error.message)
        return "the relay ended", ticked


async def _still_there(source: LogSource) -> bool:
    """Whether the log exists although its relay broke, or says that it is lost: a runner may only be restarting."""
    with contextlib.suppress(DoorUnreachable):
        try:
            await source.head()
        except LogRefused:
            return False
    return True


def _note_frames(hub: LogHub, payload: bytes) -> None:
    try:
        for frame in FrameDecoder().feed(payload):
            hub.note_frame(frame)
    except ValueError as error:
        # What is missing now is read from the file, as with a message that was lost.
        log.warning("log_frames_unreadable", error=str(error))
