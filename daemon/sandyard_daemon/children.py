"""The one place that waits for child processes: those we started, and orphans that became ours."""

import asyncio
import os
import signal
from collections.abc import Callable

from sandyard_daemon.linux import exit_code


class Children:
    """Tells whoever started a process when it ended. Nobody else in the daemon calls `wait`."""

    def __init__(self) -> None:
        self._watched: dict[int, Callable[[int], None]] = {}

    def start(self) -> None:
        """Begin to reap. Call in the event loop's thread."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)

    def stop(self) -> None:
        """Reap no more. A closing event loop takes no signals, and says so loudly when one comes."""
        asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)

    def watch(self, pid: int, ended: Callable[[int], None]) -> None:
        """Call `ended` with the exit code of our child `pid`. Call it before the loop runs again after the start."""
        self._watched[pid] = ended

    def exit_of(self, pid: int) -> "asyncio.Future[int]":
        """The exit code of our child `pid`, once it ended."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.watch(pid, lambda code: None if future.done() else future.set_result(code))
        return future

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            ended = self._watched.pop(pid, None)
            if ended is not None:
                ended(exit_code(status))
