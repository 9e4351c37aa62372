"""From a pipe to whoever keeps its bytes: raw, event-driven, as long as anybody holds the pipe open."""

import asyncio
import os
from collections.abc import Callable

from sandyard_daemon.linux import bytes_waiting, large_pipe

Take = Callable[[int, int], int]
"""Moves bytes out of a pipe, given its reading end and how many at the most: how many it were, 0 at the pipe's end.

Raises `BlockingIOError` when there is nothing now.
"""
_MOST = 256 << 10
_BUFFER = memoryview(bytearray(_MOST))
"""One for all pipes: the loop reads one at a time, and what was read is stored before the next read."""
_TAKES_PER_TURN = 4


def reading(keep: Callable[[memoryview], None]) -> Take:
    """Reads what `keep` is then given; it is valid until that returns."""

    def take(pipe: int, most: int) -> int:
        data = read(pipe, most)
        if data:
            keep(data)
        return len(data)

    return take


def read(pipe: int, most: int) -> memoryview:
    """Valid until the next read. Raises `BlockingIOError`."""
    return _BUFFER[: os.readv(pipe, [_BUFFER[:most]])]


class Capture:
    """Empties one pipe. The far end is opened by others through `path`, as often as they like."""

    def __init__(self, take: Take, ended: Callable[[], None]) -> None:
        self._take_from = take
        self._ended = ended
        self._reader, self._writer = large_pipe()
        self.is_open = True
        asyncio.get_running_loop().add_reader(self._reader, self._read)

    @property
    def writer(self) -> int:
        """Our descriptor of the writing end, to be inherited; valid until `release`."""
        return self._writer

    @property
    def path(self) -> str:
        """Opens the writing end, from any process of this user, until `release` and while somebody holds it."""
        return f"/proc/{os.getpid()}/fd/{self._reader}"

    def release(self) -> None:
        """Let go of our own writing end: from now on the pipe ends when its last other holder does."""
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1

    def drain(self) -> None:
        """Read what is in the pipe now, not what comes meanwhile."""
        remaining = bytes_waiting(self._reader) if self.is_open else 0
        while remaining > 0:
            count = self._take(min(remaining, _MOST))
            if count <= 0:
                return
            remaining -= count

    def close(self) -> None:
        """Stop reading; may be repeated."""
        self.release()
        if self.is_open:
            self.is_open = False
            asyncio.get_running_loop().remove_reader(self._reader)
            os.close(self._reader)

    def _read(self) -> None:
        for _ in range(_TAKES_PER_TURN):
            count = self._take(_MOST)
            if count == 0:
                self.close()
                self._ended()
            if count < _MOST:
                return

    def _take(self, most: int) -> int:
        """How many bytes were taken; 0 at the end of the pipe, -1 when there is nothing now."""
        try:
            return self._take_from(self._reader, most)
        except BlockingIOError:
            return -1
