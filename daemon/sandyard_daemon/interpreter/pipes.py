"""The pipes between the daemon and a worker."""

import asyncio
import codecs
import os
from collections.abc import Callable

from sandyard_daemon.linux import bytes_waiting, large_pipe

MAX_READ = 32 << 10
"""Bytes of one message's text at the most: what every client takes."""


class Pipe:
    """Reads what others write to `path`. Never ends by itself: we hold the writing end."""

    def __init__(self, heard: Callable[[bytes], None]) -> None:
        self._heard = heard
        self._reader, self._writer = large_pipe()
        self._is_reading = False
        self._is_open = True
        self.resume()

    @property
    def path(self) -> str:
        """Opens the writing end, from any process of this user."""
        return f"/proc/{os.getpid()}/fd/{self._reader}"

    def pause(self) -> None:
        """Read no more for now: who writes waits when the pipe is full."""
        if self._is_reading:
            self._is_reading = False
            asyncio.get_running_loop().remove_reader(self._reader)

    def resume(self) -> None:
        """Read on."""
        if not self._is_reading and self._is_open:
            self._is_reading = True
            asyncio.get_running_loop().add_reader(self._reader, self._read)

    def drain(self) -> None:
        """Read what is in the pipe now, not what comes meanwhile; at the most what a pipe holds."""
        left = bytes_waiting(self._reader) if self._is_open else 0
        while left > 0:
            left -= self._read(min(left, MAX_READ)) or left

    def close(self) -> None:
        """May be repeated."""
        self.pause()
        if self._is_open:
            self._is_open = False
            os.close(self._reader)
            os.close(self._writer)

    def _read(self, most: int = MAX_READ) -> int:
        try:
            data = os.read(self._reader, most)
        except BlockingIOError:
            return 0
        self._heard(data)
        return len(data)


class TextPipe:
    """A pipe whose bytes are UTF-8, wherever reads cut them; what is not becomes U+FFFD."""

    def __init__(self, heard: Callable[[str], None]) -> None:
        self._tell = heard
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.pipe = Pipe(self._heard)

    def drain(self) -> None:
        """What is in the pipe now, half a character at its end included."""
        self.pipe.drain()
        self._heard(b"", final=True)
        self._decoder.reset()

    def _heard(self, data: bytes, final: bool = False) -> None:
        text = self._decoder.decode(data, final)
        if text:
            self._tell(text)


async def write_all(descriptor: int, data: bytes) -> None:
    """Write to a descriptor that does not block, waiting for room. Raises `OSError`."""
    loop = asyncio.get_running_loop()
    view = memoryview(data)
    room = asyncio.Event()
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            room.clear()
            loop.add_writer(descriptor, room.set)
            try:
                await room.wait()
            finally:
                loop.remove_writer(descriptor)
