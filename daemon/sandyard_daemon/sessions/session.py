"""One session: a queue of commands for one shell, which is started with the first of them."""

import asyncio
import os
from collections import deque
from collections.abc import Callable
from enum import Enum

from sandyard_daemon.errors import BadRequest, DaemonError, Internal, NotFound, SessionEnded
from sandyard_daemon.events import EventLog
from sandyard_daemon.sessions.command import Command, Status
from sandyard_daemon.sessions.shell import KILLED, Shell

MAX_QUEUED = 10_000
MAX_FINISHED = 10_000
"""Finished commands a session remembers; the oldest are forgotten with their logs."""
NEVER_RAN = 1
"""Exit code of a command whose session ended before its turn."""

StartShell = Callable[[Callable[[int], None], Callable[[int], None]], Shell]
"""Starts the session's shell, given what to call at a command's status and at the shell's death."""


class Life(Enum):
    """Whether a session takes commands."""

    OPEN = "open"
    ENDED = "ended"
    """Its shell is dead; commands and logs stay readable."""
    DELETED = "deleted"


class Session:
    """Runs one command at a time, in order; whoever waits for one may go away without harm to it."""

    def __init__(self, session_id: str, start_shell: StartShell, events: EventLog) -> None:
        self.session_id = session_id
        self.life = Life.OPEN
        self.commands: dict[str, Command] = {}
        self._start_shell = start_shell
        self._events = events
        self._queue: deque[Command] = deque()
        self._running: Command | None = None
        self._shell: Shell | None = None
        self._shells_end = KILLED
        """The exit code that the shell ended with while the session was deleted."""
        self._finished = 0
        events.add("session_created", session_id)

    def submit(self, command: Command) -> None:
        """Run it when its turn comes. Raises `SessionEnded`, `BadRequest` when too many wait, `Internal`."""
        if self.life is not Life.OPEN:
            raise SessionEnded(f"session {self.session_id} has ended")
        if len(self._queue) >= MAX_QUEUED:
            raise BadRequest(f"{MAX_QUEUED} commands are waiting in session {self.session_id}")
        if self._shell is None:
            self._shell = self._start_shell(self._command_finished, self._shell_died)
        self.commands[command.command_id] = command
        self._events.add("command_created", self.session_id, command)
        self._queue.append(command)
        self._advance()

    def command(self, command_id: str) -> Command:
        """One of its commands. Raises `NotFound`."""
        try:
            return self.commands[command_id]
        except KeyError:
            raise NotFound(f"command not found: {command_id}") from None

    async def delete(self) -> None:
        """End everything that runs in it, then forget it and its logs."""
        self.life = Life.DELETED
        ended = SessionEnded(f"session {self.session_id} was deleted")
        try:
            if self._shell is not None:
                await self._shell.end()
        finally:
            # Only now: what its program says when it is told to end comes after the shell's own death.
            running, self._running = self._running, None
            if running is not None:
                self._end_command(running, self._shells_end, ended)
        self._fail_queue(ended)
        for command in self.commands.values():
            self._events.keep_last_lines(command)
            command.remove()
        self._events.add("session_ended", self.session_id)

    def _advance(self) -> None:
        while self._running is None and self._queue and self._shell is not None and self.life is Life.OPEN:
            command = self._queue.popleft()
            try:
                paths = command.open()
            except OSError as error:
                self._end_command(command, NEVER_RAN, Internal(f"cannot run the command: {error.strerror}"))
                continue
            self._running = command
            self._events.add("command_started", self.session_id, command)
            self._shell.run(**paths)

    def _command_finished(self, exit_code: int) -> None:
        command, self._running = self._running, None
        if command is not None:
            self._end_command(command, exit_code)
        self._advance()

    def _shell_died(self, exit_code: int) -> None:
        """The running command ends with the shell's status; those behind it will never run."""
        if self.life is Life.DELETED:
            self._shells_end = exit_code
            return
        running, self._running = self._running, None
        if running is not None:
            self._end_command(running, exit_code)
        if self.life is Life.OPEN:
            self.life = Life.ENDED
            self._fail_queue(SessionEnded(f"session {self.session_id} ended with exit code {exit_code} before this"))
            self._events.add("session_ended", self.session_id)

    def _fail_queue(self, problem: DaemonError) -> None:
        while self._queue:
            self._end_command(self._queue.popleft(), NEVER_RAN, problem)

    def _end_command(self, command: Command, exit_code: int, problem: DaemonError | None = None) -> None:
        command.finish(exit_code, problem)
        self._events.add("command_ended", self.session_id, command)
        self._finished += 1
        if self._finished > MAX_FINISHED:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        for command_id, command in self.commands.items():
            if command.status is Status.FINISHED:
                self._events.keep_last_lines(command)
                command.remove()
                del self.commands[command_id]
                self._finished -= 1
                return


def new_command_id() -> str:
    """A version 4 UUID; the `uuid` module is not worth its memory."""
    number = bytearray(os.urandom(16))
    number[6] = number[6] & 0x0F | 0x40
    number[8] = number[8] & 0x3F | 0x80
    text = number.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


async def delete_all(sessions: list[Session], deadline_seconds: float) -> None:
    """End many sessions side by side, in bounded time."""
    if sessions:
        tasks = [asyncio.ensure_future(session.delete()) for session in sessions]
        _, late = await asyncio.wait(tasks, timeout=deadline_seconds)
        for task in late:
            task.cancel()
