"""One command of a session: its record, its log, and what it reads."""

import asyncio
import contextlib
import os
import time
from enum import Enum
from functools import partial

from sandyard_daemon.errors import BadRequest, CommandCompleted, DaemonError, SessionEnded
from sandyard_daemon.sessions.capture import Capture
from sandyard_daemon.sessions.log import CommandLog
from sandyard_daemon.wire import Stream

MAX_PENDING_INPUT = 4 << 20
"""Bytes of input a command may leave unread, beside what its pipe holds."""


class Status(Enum):
    """Where a command stands."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"


class Command:
    """A command text and everything known of its run.

    `exit_code` is `None` until it finished. `name` is a path of our own: `<name>.sh`, `.log`, `.runs`.
    """

    def __init__(self, command_id: str, text: str, name: str, *, log_cap: int, is_async: bool, echo: bool) -> None:
        self.command_id = command_id
        self.text = text
        self.status = Status.QUEUED
        self.exit_code: int | None = None
        self.problem: DaemonError | None = None
        self.is_async = is_async
        self.created_at = time.time()
        self.log = CommandLog(name, log_cap)
        self._script = name + ".sh"
        self._echo = echo
        self._input = bytearray()
        self._stdin: tuple[int, int] | None = None
        self._captures: tuple[Capture, ...] = ()
        self._done: set[asyncio.Future[None]] = set()

    def open(self) -> dict[str, str]:
        """Write the script and open the pipes: the arguments for `Shell.run`. Raises `OSError`."""
        descriptor = os.open(self._script, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as script:
            script.write(self.text.encode("utf-8", "surrogateescape"))
        self._captures = (
            Capture(partial(self.log.take, Stream.STDOUT), self._rest),
            Capture(partial(self.log.take, Stream.STDERR), self._rest),
        )
        stdin = os.devnull
        if self.is_async:
            self._stdin = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            stdin = f"/proc/{os.getpid()}/fd/{self._stdin[0]}"
        self.status = Status.RUNNING
        self._feed()
        return {
            "script": self._script,
            "stdin": stdin,
            "stdout": self._captures[0].path,
            "stderr": self._captures[1].path,
        }

    def finish(self, exit_code: int, problem: DaemonError | None = None) -> None:
        """Take what it wrote before its end, then say that it ended. Its background children are read on."""
        if self.status is Status.FINISHED:
            return
        for capture in self._captures:
            capture.drain()
            capture.release()
        if problem is not None and self.status is Status.QUEUED:
            # It has no output of its own to tell why.
            self.log.append(Stream.STDERR, f"{problem.message}\n".encode())
        self._close_stdin()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._script)
        self.status, self.exit_code, self.problem = Status.FINISHED, exit_code, problem
        self.log.finish(exit_code)
        self._rest()
        for waiter in self._done:
            if not waiter.done():
                waiter.set_result(None)

    def write_input(self, text: str, *, raw: bool) -> None:
        """Append to what the command reads, with a newline at its end unless `raw`; shown in the log unless suppressed.

        Never waits. Raises `CommandCompleted`, `BadRequest`.
        """
        if self.status is Status.FINISHED:
            raise self.problem or CommandCompleted(f"command {self.command_id} has already completed")
        if not self.is_async:
            raise BadRequest("the command runs synchronously: its standard input is empty")
        data = text.encode("utf-8", "surrogateescape")
        if not raw and not data.endswith(b"\n"):
            data += b"\n"
        if len(self._input) + len(data) > MAX_PENDING_INPUT:
            raise BadRequest(f"the command has left {len(self._input)} bytes of input unread")
        self._input += data
        if self._echo:
            self.log.append(Stream.STDOUT, data)
        self._feed()

    async def wait(self) -> None:
        """Return when it finished."""
        if self.status is Status.FINISHED:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._done.add(waiter)
        try:
            await waiter
        finally:
            self._done.discard(waiter)

    def remove(self) -> None:
        """Let go of everything, the log included; the command is finished or dies with its session."""
        if self.status is not Status.FINISHED:
            self.finish(137, SessionEnded("the session was deleted"))
        for capture in self._captures:
            capture.close()
        self.log.remove()

    def _feed(self) -> None:
        """Hand over what the pipe takes now, and come back when it takes more."""
        if self._stdin is None:
            return
        loop, writer = asyncio.get_running_loop(), self._stdin[1]
        while self._input:
            try:
                del self._input[: os.write(writer, self._input)]
            except BlockingIOError:
                loop.add_writer(writer, self._feed)
                return
        loop.remove_writer(writer)

    def _close_stdin(self) -> None:
        self._input.clear()
        if self._stdin is not None:
            asyncio.get_running_loop().remove_writer(self._stdin[1])
            for descriptor in self._stdin:
                os.close(descriptor)
            self._stdin = None

    def _rest(self) -> None:
        if self.status is Status.FINISHED and not any(capture.is_open for capture in self._captures):
            self.log.rest()
