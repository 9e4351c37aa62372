"""What happened to sessions and commands, numbered, kept until acknowledged: the database learns of it from here."""

import asyncio
import base64
import dataclasses
import json
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from sandyard_daemon.errors import timestamp
from sandyard_daemon.wire import Event

if TYPE_CHECKING:  # a session adds events of its commands
    from sandyard_daemon.sessions.command import Command

MAX_EVENTS = 50_000
MAX_COMMAND_TEXT = 64 << 10
"""Characters of a command an event carries."""
MAX_KEPT_LINES = 8 << 20
"""Bytes of last lines held for events of logs that are gone."""
EMPTY_LINE_SECONDS = 10.0


class _Entry:
    """An event, and the command whose log still holds its last lines."""

    __slots__ = ("command", "event")

    def __init__(self, event: Event, command: "Command | None") -> None:
        self.event = event
        self.command = command


class EventLog:
    """Bounded: past `MAX_EVENTS` the oldest are forgotten. Numbers rise over restarts too: they begin at the time."""

    def __init__(self) -> None:
        self._entries: deque[_Entry] = deque()
        self._number = int(time.time() * 1e6)
        self._ended: dict[str, _Entry] = {}
        self._kept_lines = 0
        self._waiters: set[asyncio.Future[None]] = set()
        self._closed = False

    @property
    def last_number(self) -> int:
        """The number of the newest event."""
        return self._number

    def add(self, kind: str, session_id: str, command: "Command | None" = None) -> None:
        """Something happened now."""
        self._number += 1
        event = Event(self._number, kind, timestamp(), session_id)
        if command is not None:
            event = dataclasses.replace(
                event,
                command_id=command.command_id,
                command=command.text[:MAX_COMMAND_TEXT],
                exit_code=command.exit_code,
                log_size=command.log.size,
            )
        entry = _Entry(event, command if kind == "command_ended" else None)
        self._entries.append(entry)
        if entry.command is not None:
            self._ended[entry.command.command_id] = entry
        if len(self._entries) > MAX_EVENTS:
            self._forget()
        self._wake()

    def close(self) -> None:
        """Nothing happens any more: who reads gets what there is, then the end."""
        self._closed = True
        self._wake()

    def keep_last_lines(self, command: "Command") -> None:
        """The command's log is about to be removed: keep what an event nobody acknowledged needs of it."""
        entry = self._ended.pop(command.command_id, None)
        if entry is None:
            return
        last = _last_lines(command)
        if self._kept_lines + len(last) <= MAX_KEPT_LINES:
            self._kept_lines += len(last)
            entry.event = dataclasses.replace(entry.event, last_lines=last)
        entry.command = None

    async def lines(self, after: int) -> AsyncIterator[bytes]:
        """Newline-delimited JSON of the events after number `after`, then of those to come until `close`; also an empty
        line now and then. What is not after it is acknowledged and forgotten."""
        while self._entries and self._entries[0].event.number <= after:
            self._forget()
        yield b"\n"  # the head goes out at once
        while True:
            # Numbers have no gaps, so the next event's place is known.
            place = max(0, after + 1 - self._entries[0].event.number) if self._entries else 0
            if place < len(self._entries):
                entry = self._entries[place]
                after = entry.event.number
                yield _encode(entry)
            elif self._closed:
                return
            elif not await self._added():
                yield b"\n"

    async def _added(self) -> bool:
        """Whether an event came before the time for an empty line."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            async with asyncio.timeout(EMPTY_LINE_SECONDS):
                await waiter
            return True
        except TimeoutError:
            return False
        finally:
            self._waiters.discard(waiter)

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _forget(self) -> None:
        entry = self._entries.popleft()
        self._kept_lines -= len(entry.event.last_lines)
        if entry.command is not None:
            self._ended.pop(entry.command.command_id, None)


def _last_lines(command: "Command") -> str:
    return base64.b64encode(command.log.last_bytes()).decode()


def _encode(entry: _Entry) -> bytes:
    event = entry.event
    if entry.command is not None:
        event = dataclasses.replace(event, last_lines=_last_lines(entry.command))
    return json.dumps(dataclasses.asdict(event)).encode() + b"\n"
