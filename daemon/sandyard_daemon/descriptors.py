"""Reading from and writing to the near ends of pipes and terminals, never blocking the loop, bounded in memory."""

import asyncio
import os
from collections.abc import Callable

MAX_PENDING = 1 << 20
"""Bytes that may wait for a program to read them; more are not taken from whoever sends them."""
STALL_SECONDS = 10.0
PIECE = 32 << 10
"""Bytes of one read at the most."""


class Unread(TimeoutError):
    """The program took nothing for a while, and no more bytes can wait for it."""


class Reader:
    """The reading end of a pipe, or a terminal's near side. One task reads."""

    def __init__(self, descriptor: int) -> None:
        """Takes the descriptor over."""
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._ready: asyncio.Future[None] | None = None
        self.is_open = True

    async def read(self) -> bytes:
        """What is there, `PIECE` bytes at the most; empty at the end. A flood lets others run between two reads."""
        await asyncio.sleep(0)
        while (data := self._read_now()) is None:
            self._ready = _new_future()
            asyncio.get_running_loop().add_reader(self._descriptor, _resolver(self._ready))
            try:
                await self._ready
            finally:
                if self.is_open:  # else the number may be another file's by now
                    asyncio.get_running_loop().remove_reader(self._descriptor)
        return data

    def close(self) -> None:
        """A waiting `read` gives its end. May be repeated."""
        if self.is_open:
            self.is_open = False
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            if self._ready is not None and not self._ready.done():
                self._ready.set_result(None)

    def _read_now(self) -> bytes | None:
        """`None` when there is nothing now."""
        parts: list[bytes] = []
        left = PIECE
        while left > 0 and self.is_open:
            try:
                part = os.read(self._descriptor, left)
            except BlockingIOError:
                return b"".join(parts) if parts else None
            except OSError:  # EIO: the last program let go of the terminal
                break
            if not part:
                break
            parts.append(part)
            left -= len(part)
        return b"".join(parts)


class Writer:
    """The writing end of a pipe, or a terminal's near side: what the program does not read yet waits here."""

    def __init__(self, descriptor: int, stall_seconds: float = STALL_SECONDS) -> None:
        """Takes the descriptor over."""
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._stall_seconds = stall_seconds
        self._pending = bytearray()
        self._progress = asyncio.Event()
        self._ending = False
        self._waits = False
        self.is_open = True
        self.on_taken: Callable[[int], None] | None = None
        """Told of every byte that was `put` once it waits no more: written, or dropped."""

    async def put(self, data: bytes) -> None:
        """Queue bytes behind those that wait, once there is room; dropped where the program reads no more.

        Raises `Unread`.
        """
        while self.is_open and len(self._pending) > MAX_PENDING:
            self._progress.clear()
            try:
                async with asyncio.timeout(self._stall_seconds):
                    await self._progress.wait()
            except TimeoutError as error:
                raise Unread("the program does not read its input") from error
        if self.is_open and not self._ending:
            self._pending += data
            if not self._waits:
                self._write()
        else:
            self._tell(len(data))

    def end(self) -> None:
        """Close once everything that waits is written."""
        self._ending = True
        if not self._pending:
            self.close()

    def close(self) -> None:
        """Close at once; may be repeated."""
        if self.is_open:
            self.is_open = False
            self._tell(len(self._pending))
            self._pending.clear()
            self._progress.set()
            asyncio.get_running_loop().remove_writer(self._descriptor)
            os.close(self._descriptor)

    def _write(self) -> None:
        try:
            # Not all at once: this runs between two turns of the loop.
            count = os.write(self._descriptor, bytes(self._pending[: 64 << 10]))
        except BlockingIOError:
            count = 0
        except OSError:  # the program closed its end
            self.close()
            return
        del self._pending[:count]
        self._tell(count)
        self._progress.set()
        self._wait_on(bool(self._pending))
        if self._ending and not self._pending:
            self.close()

    def _tell(self, count: int) -> None:
        if count and self.on_taken is not None:
            self.on_taken(count)

    def _wait_on(self, waits: bool) -> None:
        if waits and not self._waits:
            asyncio.get_running_loop().add_writer(self._descriptor, self._write)
        elif self._waits and not waits:
            asyncio.get_running_loop().remove_writer(self._descriptor)
        self._waits = waits


def _new_future() -> "asyncio.Future[None]":
    return asyncio.get_running_loop().create_future()


def _resolver(future: "asyncio.Future[None]") -> Callable[[], None]:
    return lambda: None if future.done() else future.set_result(None)
