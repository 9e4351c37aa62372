"""A program with streams of its own, alone under a supervisor: started, signalled, ended with all it ever started."""

import asyncio
import contextlib
import os
import signal
from typing import NamedTuple

from sandyard_daemon.children import Children
from sandyard_daemon.errors import Internal
from sandyard_daemon.sessions import supervisor
from sandyard_daemon.sessions.supervisor import END, HANG_UP, KILL, Program

KILLED = 137

__all__ = ["END", "HANG_UP", "KILL", "Exit", "Program", "Supervised"]


class Exit(NamedTuple):
    """How the program ended."""

    code: int
    """128 + n after signal n, and 127 when it could not be started."""
    signal: int = 0
    """The signal that killed it, else 0."""
    problem: str = ""
    """Why it could not be started, else empty."""


class Supervised:
    """A running program. What it leaves behind goes on after its `exit`, until `end` is called."""

    def __init__(self, program: Program, children: Children) -> None:
        """Start it. The streams stay the caller's to close. Raises `Internal` when no process is to be had."""
        try:
            self._ends = supervisor.start(program)
        except OSError as error:
            raise Internal(f"cannot start a process: {error.strerror}") from error
        loop = asyncio.get_running_loop()
        self.exit: asyncio.Future[Exit] = loop.create_future()
        self.gone = asyncio.Event()
        """Set when nothing is left of what it started."""
        self._reports = b""
        self._problem = ""
        loop.add_reader(self._ends.report, self._read_report)
        children.watch(self._ends.pid, lambda _: self._close())

    def send_signal(self, number: signal.Signals) -> None:
        """To the program and its process group; nothing where it has ended."""
        if not self.exit.done():
            self._order(supervisor.SIGNAL + bytes([number]))

    def begin_end(self, how: bytes) -> None:
        """Let the supervisor end the tree: `END`, `KILL` or `HANG_UP`. May be repeated."""
        self._order(how)

    async def end(self, how: bytes) -> None:
        """End the whole tree and return when it is gone. Bounded by the supervisor."""
        self.begin_end(how)
        await self.gone.wait()

    def _order(self, order: bytes) -> None:
        if not self.gone.is_set():
            with contextlib.suppress(OSError):  # it ended by itself meanwhile
                os.write(self._ends.control, order)

    def _read_report(self) -> None:
        try:
            data = os.read(self._ends.report, 4096)
        except BlockingIOError:
            return
        if not data:  # the supervisor ends; `children` tells when it is gone
            asyncio.get_running_loop().remove_reader(self._ends.report)
        *lines, self._reports = (self._reports + data).split(b"\n")
        for line in lines:
            self._take(line.decode("utf-8", "replace"))

    def _take(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "failed":
            self._problem = rest
        elif not self.exit.done():
            code, _, number = rest.partition(" ")
            self.exit.set_result(Exit(int(code), int(number), self._problem))

    def _close(self) -> None:
        self._read_report()
        asyncio.get_running_loop().remove_reader(self._ends.report)
        os.close(self._ends.control)
        os.close(self._ends.report)
        if not self.exit.done():  # somebody killed the supervisor
            self.exit.set_result(Exit(KILLED, signal.SIGKILL, self._problem))
        self.gone.set()
