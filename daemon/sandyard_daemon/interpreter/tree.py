"""A process with everything it ever starts, kept together by a supervisor: told when it dies, ended as a whole."""

import asyncio
import contextlib
import os
from collections.abc import Callable

from sandyard_daemon.children import Children
from sandyard_daemon.interpreter.errors import WorkerFailed
from sandyard_daemon.sessions import supervisor
from sandyard_daemon.sessions.supervisor import Program, Supervisor

KILLED = 137


class Tree:
    """`died` is called once, with the exit code of the process the supervisor started."""

    def __init__(self, supervised: Supervisor, died: Callable[[int], None]) -> None:
        self._supervised = supervised
        self._died = died
        self._is_alive = True
        self._reports = b""
        self._gone = asyncio.Event()
        asyncio.get_running_loop().add_reader(supervised.report, self._read)

    @classmethod
    def start(cls, program: Program, children: Children, died: Callable[[int], None]) -> "Tree":
        """Raises `WorkerFailed`."""
        try:
            supervised = supervisor.start(program)
        except OSError as error:
            raise WorkerFailed(f"cannot start a process: {error.strerror}") from error
        tree = cls(supervised, died)
        children.watch(supervised.pid, lambda _: tree._read())
        return tree

    @property
    def stdin(self) -> int:
        """Writes to the process's standard input; never blocks; valid until the tree is gone."""
        return self._supervised.stdin

    async def end(self) -> None:
        """End all of it; return when it is gone. Bounded by the supervisor; may be repeated."""
        if not self._gone.is_set():
            with contextlib.suppress(OSError):
                os.write(self._supervised.control, b"k")
            await self._gone.wait()

    def _read(self) -> None:
        if self._gone.is_set():
            return
        try:
            data = os.read(self._supervised.report, 4096)
        except BlockingIOError:
            return
        self._reports += data
        *lines, self._reports = self._reports.split(b"\n")
        for line in lines:
            word, *numbers = line.split(b" ")  # the exit code, then the signal
            self._tell(int(numbers[0]) if word == b"exit" else KILLED)
        if not data:
            self._tell(KILLED)
            self._close()

    def _tell(self, exit_code: int) -> None:
        if self._is_alive:
            self._is_alive = False
            self._died(exit_code)

    def _close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._supervised.report)
        for descriptor in (self._supervised.control, self._supervised.report, self._supervised.stdin):
            os.close(descriptor)
        self._gone.set()
