"""What happens without having been asked for: deaths, and what sandboxes' sessions and commands do."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import msgspec
import structlog

from sandyard.clock import Clock
from sandyard_api.jobs.client import ControlPlane, ControlPlaneError, ControlPlaneRefused
from sandyard_api.jobs.wire import CommandRecord, SessionRecord
from sandyard_api.sandboxes.states import Observed
from sandyard_runner.door_http import Answer, ask, ask_json
from sandyard_runner.errors import DaemonUnreachable, RuntimeFailure
from sandyard_runner.observations import RETRY_SECONDS, Observations
from sandyard_runner.registry import Registry
from sandyard_runner.runtime.contract import Runtime, RuntimeEvent

RECONNECT_SECONDS = 0.2
SILENCE_SECONDS = 30.0
"""The daemon sends an empty line every ten seconds; one that is silent this long is asked again."""
DAEMON_GONE_SECONDS = 15.0
ACKNOWLEDGE_AFTER_EVENTS = 5_000
MAX_LINE_BYTES = 1 << 20
DRAIN_SECONDS = 3.0
"""How long the end of a sandbox may wait for events that its daemon has already."""
LAST_EVENTS_SECONDS = 5.0
KILLED = 137
"""Exit code of what was still running when its sandbox was gone."""

log = structlog.get_logger(__name__)


class Observer:
    """One connection per running sandbox to its daemon's events, and the runtime's own events."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        control_plane: ControlPlane,
        registry: Registry,
        observations: Observations,
        clock: Clock,
    ) -> None:
        self._runtime = runtime
        self._control_plane = control_plane
        self._registry = registry
        self._observations = observations
        self._clock = clock
        self._watching: dict[str, _SandboxEvents] = {}

    def watch(self, sandbox_id: str) -> None:
        """Follow the events of a sandbox that the registry knows; watching twice starts anew."""
        earlier = self._watching.pop(sandbox_id, None)
        if earlier is not None:
            earlier.task.cancel()
        self._watching[sandbox_id] = _SandboxEvents(
            sandbox_id, self._registry, self._control_plane, self._clock, self._daemon_gone
        )

    def is_watching(self, sandbox_id: str) -> bool:
        """Whether events of that sandbox are being followed."""
        return sandbox_id in self._watching

    async def unwatch(self, sandbox_id: str) -> None:
        """Stop following; not followed is success."""
        events = self._watching.pop(sandbox_id, None)
        if events is not None and events.task is not asyncio.current_task():
            events.task.cancel()
            await asyncio.gather(events.task, return_exceptions=True)

    @asynccontextmanager
    async def ending(self, sandbox_id: str) -> AsyncIterator[None]:
        """The block ends the sandbox, perhaps without a word to its daemon. What happened in it before is told first;
        afterwards its daemon's last events are waited for, and what was still open is told to have ended."""
        events = self._watching.get(sandbox_id)
        if events is None:
            yield
            return
        await events.drain()
        events.is_ending = True
        try:
            yield
        except BaseException:
            events.is_ending = False
            raise
        await self._finish(sandbox_id)

    @asynccontextmanager
    async def holding(self, sandbox_id: str) -> AsyncIterator[None]:
        """The block pauses the sandbox: what happened before is told first, and its silence is no sign of death from
        then until `release`. Where the block raises, all is as before."""
        events = self._watching.get(sandbox_id)
        if events is not None:
            await events.drain()
            events.hold()
        try:
            yield
        except BaseException:
            self.release(sandbox_id)
            raise

    def hold(self, sandbox_id: str) -> None:
        """It is paused already, as found at a start: follow it again from `release` on."""
        if sandbox_id not in self._watching:
            self.watch(sandbox_id)
        self._watching[sandbox_id].hold()

    def release(self, sandbox_id: str) -> None:
        """It runs again: follow its events from where they were left. One that is not followed yet is followed."""
        events = self._watching.get(sandbox_id)
        if events is None:
            self.watch(sandbox_id)
        else:
            events.release()

    async def run(self) -> None:
        """Turn the runtime's events into observations, until cancelled."""
        async with self._runtime.events() as events:
            async for event in events:
                await self._on_event(event)

    async def close(self) -> None:
        """Stop following everything."""
        for sandbox_id in list(self._watching):
            await self.unwatch(sandbox_id)

    async def _finish(self, sandbox_id: str) -> None:
        events = self._watching.pop(sandbox_id, None)
        if events is not None:
            await events.finish()

    async def _on_event(self, event: RuntimeEvent) -> None:
        log.info("sandbox_event", sandbox_id=event.sandbox_id, gone=event.gone, reason=event.reason)
        if event.is_note:
            self._observations.note(event.sandbox_id, event.reason)
            return
        self._registry.discard(event.sandbox_id)
        await self._finish(event.sandbox_id)
        observed = Observed.ERROR if event.gone else Observed.STOPPED
        self._observations.add(event.sandbox_id, observed, event.reason)

    async def _daemon_gone(self, sandbox_id: str, reason: str) -> None:
        """A sandbox whose daemon is gone cannot be used any more: end it, so that it can be started again."""
        log.warning("daemon_gone", sandbox_id=sandbox_id, reason=reason)
        self._watching.pop(sandbox_id, None)
        try:
            await self._runtime.stop(sandbox_id, force=True)
        except RuntimeFailure as failure:
            self._observations.add(sandbox_id, Observed.ERROR, f"{reason}; {failure.message}")
            return
        self._registry.discard(sandbox_id)
        self._observations.add(sandbox_id, Observed.STOPPED, f"stopped because its daemon is gone: {reason}")


class _SandboxEvents:
    """Follows one daemon's events. The daemon keeps them until they are acknowledged, so nothing is buffered here."""

    def __init__(
        self,
        sandbox_id: str,
        registry: Registry,
        control_plane: ControlPlane,
        clock: Clock,
        daemon_gone: Callable[[str, str], Awaitable[None]],
    ) -> None:
        self._sandbox_id = sandbox_id
        self._registry = registry
        self._control_plane = control_plane
        self._clock = clock
        self._daemon_gone = daemon_gone
        self._records = _Records(sandbox_id)
        self._told = 0
        """Number of the last event the control plane has."""
        self._told_more = asyncio.Event()
        self.is_ending = False
        self._running = asyncio.Event()
        self._running.set()
        self.task = asyncio.create_task(self._run(), name=f"events {sandbox_id}")

    def hold(self) -> None:
        """The daemon stands still."""
        self._running.clear()

    def release(self) -> None:
        """The daemon runs on."""
        self._running.set()

    async def drain(self) -> None:
        """Return when the control plane has every event the daemon has now, or after `DRAIN_SECONDS`."""
        door = self._registry.find_door(self._sandbox_id)
        if door is None or self.task.done() or not self._running.is_set():
            return
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                _, health = await ask_json(door, "/_daemon/health")
                last = int(health["last_event"])
                while self._told < last:
                    self._told_more.clear()
                    await self._told_more.wait()
        except (DaemonUnreachable, TimeoutError, ValueError, KeyError, TypeError) as error:
            log.warning("events_not_drained", sandbox_id=self._sandbox_id, reason=repr(error))

    async def finish(self) -> None:
        """The daemon is gone: take its last events, then tell that what they left open ended with it."""
        self.is_ending = True
        self._running.set()
        await asyncio.wait((self.task,), timeout=LAST_EVENTS_SECONDS)
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self._tell_end()

    async def _tell_end(self) -> None:
        try:
            async with asyncio.timeout(LAST_EVENTS_SECONDS):
                await self._record(*self._records.ended(self._clock.now()))
        except TimeoutError:
            log.error("records_lost", sandbox_id=self._sandbox_id)

    async def _run(self) -> None:
        failing_since: float | None = None
        while True:
            if not self._running.is_set():
                await self._running.wait()
                failing_since = None
            try:
                await self._follow()
                failing_since = None
            except (DaemonUnreachable, ValueError, KeyError, TypeError) as error:
                now = self._clock.monotonic()
                failing_since = now if failing_since is None else failing_since
                if now - failing_since > DAEMON_GONE_SECONDS and not self.is_ending and self._running.is_set():
                    await self._daemon_gone(self._sandbox_id, _reason(error))
                    await self._tell_end()
                    return
            if self.is_ending:
                return
            await self._clock.sleep(RECONNECT_SECONDS)

    async def _follow(self) -> None:
        door = self._registry.find_door(self._sandbox_id)
        if door is None:
            raise DaemonUnreachable("the sandbox is not registered here")
        async with ask(door, f"/_daemon/events?after={self._told}") as answer:
            if answer.status != 200:
                raise DaemonUnreachable(f"the daemon answered status {answer.status} to an events request")
            await self._forward(answer)

    async def _forward(self, answer: Answer) -> None:
        """Tell the control plane what comes, as many events at once as came together."""
        pending = b""
        told_at_start = self._told
        chunks = aiter(answer.chunks)
        events_read = 0
        while events_read < ACKNOWLEDGE_AFTER_EVENTS:  # then connect again, which acknowledges
            try:
                async with asyncio.timeout(SILENCE_SECONDS):
                    chunk = await anext(chunks, None)
            except TimeoutError as error:
                raise DaemonUnreachable("the daemon's event stream went silent") from error
            if chunk is None:
                if self._told == told_at_start and not events_read:
                    raise DaemonUnreachable("the daemon ended its event stream")
                return
            *lines, pending = (pending + chunk).split(b"\n")
            if len(pending) > MAX_LINE_BYTES:
                raise DaemonUnreachable("the daemon sent an event without end")
            events = [json.loads(line) for line in lines if line.strip()]
            events_read += len(events)
            await self._tell(events)

    async def _tell(self, events: Sequence[dict[str, Any]]) -> None:
        if not events:
            return
        await self._record(*self._records.of(events))
        self._told = int(events[-1]["number"])
        self._told_more.set()

    async def _record(self, sessions: Sequence[SessionRecord], commands: Sequence[CommandRecord]) -> None:
        while sessions or commands:
            try:
                await self._control_plane.record(sessions, commands)
                return
            except ControlPlaneRefused as error:
                log.error("records_refused", sandbox_id=self._sandbox_id, reason=str(error))
                return
            except ControlPlaneError as error:
                log.warning("records_delayed", sandbox_id=self._sandbox_id, reason=str(error))
                await self._clock.sleep(RETRY_SECONDS)


def _reason(error: Exception) -> str:
    if isinstance(error, DaemonUnreachable):
        return error.message
    return f"the daemon sent what is no event: {type(error).__name__}"


class _Records:
    """Turns events into records. Remembers when what is still open began."""

    def __init__(self, sandbox_id: str) -> None:
        self._sandbox_id = sandbox_id
        self._sessions: dict[str, datetime] = {}
        self._commands: dict[tuple[str, str], CommandRecord] = {}

    def of(self, events: Sequence[dict[str, Any]]) -> tuple[list[SessionRecord], list[CommandRecord]]:
        """The records of a batch, the last of each session and command only."""
        sessions: dict[str, SessionRecord] = {}
        commands: dict[tuple[str, str], CommandRecord] = {}
        for event in events:
            at = datetime.fromisoformat(event["at"].replace("Z", "+00:00"))
            session_id, command_id = event["session_id"], event.get("command_id")
            if command_id is not None:
                commands[session_id, command_id] = self._command(event, session_id, command_id, at)
            elif event["kind"] == "session_created":
                self._sessions[session_id] = at
                sessions[session_id] = SessionRecord(self._sandbox_id, session_id, at)
            else:
                created = self._sessions.pop(session_id, at)
                sessions[session_id] = SessionRecord(self._sandbox_id, session_id, created, ended_at=at)
        return list(sessions.values()), list(commands.values())

    def ended(self, at: datetime) -> tuple[list[SessionRecord], list[CommandRecord]]:
        """What is still open, ended by force."""
        sessions = [SessionRecord(self._sandbox_id, key, began, ended_at=at) for key, began in self._sessions.items()]
        commands = [
            msgspec.structs.replace(record, finished_at=at, exit_code=KILLED) for record in self._commands.values()
        ]
        self._sessions.clear()
        self._commands.clear()
        return sessions, commands

    def _command(self, event: dict[str, Any], session_id: str, command_id: str, at: datetime) -> CommandRecord:
        key = (session_id, command_id)
        before = self._commands.pop(key, None)
        ended = event["kind"] == "command_ended"
        started = before.started_at if before else None
        record = CommandRecord(
            sandbox_id=self._sandbox_id,
            session_id=session_id,
            command_id=command_id,
            command=event.get("command") or (before.command if before else ""),
            created_at=before.created_at if before else at,
            started_at=at if event["kind"] == "command_started" else started,
            finished_at=at if ended else None,
            exit_code=event.get("exit_code"),
            log_size=event.get("log_size", 0),
            last_lines=event.get("last_lines", ""),
        )
        if not ended:
            self._commands[key] = record
        return record
