"""One command's log: a data file with the bytes of both streams in arrival order, and an index of its runs."""

import asyncio
import contextlib
import os
import struct
import time
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

from sandyard_daemon.sessions.capture import read
from sandyard_daemon.wire import EXIT_CODE, FRAME_HEADER, MAX_FRAME_PAYLOAD, LogFrame, LogHead, Stream

DEFAULT_CAP = 1 << 30
"""Bytes kept of one log."""
LAST_BYTES = 64 << 10

_ENTRY = struct.Struct(">QQ")
"""A run: where it ends, shifted left by one with the lowest bit set for stderr; when it began, µs since the epoch."""
_RUN_MICROSECONDS = 250_000
"""A run that lasts longer gets a new entry, so that times in pages are not older than that."""
_FLUSH_AT = 4 << 10
_INDEX_BLOCK = 256 * _ENTRY.size


class Run(NamedTuple):
    """Adjacent bytes of one stream."""

    start: int
    end: int
    stream: Stream
    began_at: float
    """Seconds since the epoch."""


class CommandLog:
    """Appends, and reads at any offset while it grows. Offsets count the bytes of both streams in arrival order.

    Past `cap` bytes, or when the disk is full, bytes are counted in `dropped` and not kept; the log then ends in a line
    that says so. Files exist from the first byte on, descriptors are held only while the log grows.
    """

    def __init__(self, name: str, cap: int = DEFAULT_CAP) -> None:
        self.size = 0
        self.dropped = 0
        self.end: int | None = None
        self.exit_code: int | None = None
        self.removed = False
        self._name = name
        self._cap = cap
        self._truncated = False
        self._data: int | None = None
        self._index: int | None = None
        self._entries = 0
        self._tail = bytearray()
        self._run: tuple[Stream, int] | None = None
        self._followers = 0
        self._waiters: set[asyncio.Future[None]] = set()

    @property
    def head(self) -> LogHead:
        """What is known of it."""
        return LogHead(self.size, self.end, self.exit_code, self.dropped)

    def append(self, stream: Stream, data: memoryview | bytes) -> None:
        """Keep the next bytes of a stream."""
        if self.removed:
            return
        room = self._cap - self.size
        if self._truncated or room <= 0:
            self._drop(len(data), "the log's limit is reached")
            return
        kept = self._write(stream, data[:room] if len(data) > room else data)
        if kept < len(data):
            self._drop(len(data) - kept, "the log's limit is reached" if kept == room else "the disk is full")
        self._wake()

    def take(self, stream: Stream, pipe: int, most: int) -> int:
        """Append what is in a pipe, without it coming by us; a `Take` for each stream."""
        room = self._cap - self.size
        if room > 0 and not self._truncated and not self.removed:
            try:
                moved = os.splice(pipe, self._open(), min(most, room), flags=os.SPLICE_F_NONBLOCK)
            except BlockingIOError:
                raise
            except OSError:
                pass  # a file system that does not have it, or a full disk: then `append` says so
            else:
                if moved:
                    self._extend(stream, moved)
                    self._wake()
                return moved
        data = read(pipe, most)
        if data:
            self.append(stream, data)
        return len(data)

    def finish(self, exit_code: int) -> None:
        """Write the end record: what the command itself wrote is all here. Later bytes of its children may follow."""
        self.end = self.size
        self.exit_code = exit_code
        self._wake()

    def rest(self) -> None:
        """Nothing will be appended soon: give the descriptors back."""
        self._flush_index()
        for descriptor in (self._data, self._index):
            if descriptor is not None:
                os.close(descriptor)
        self._data = self._index = None

    def remove(self) -> None:
        """Forget it, files included, once it is finished. Who follows it still gets all of it."""
        if self._followers and self.size:
            self._open()
        else:
            self.rest()
        self.removed = True
        for suffix in (".log", ".runs"):
            with contextlib.suppress(OSError):
                os.unlink(self._name + suffix)

    def runs(self, start: int, stop: int) -> Iterator[Run]:
        """The runs that cover the bytes from `start` to `stop`, cut to them. Holds no descriptor between two runs."""
        number = self._find(start)
        while start < stop:
            entries = self._entries_from(number)
            for end, stream, began_at in entries:
                if start >= stop:
                    return
                yield Run(start, min(end, stop), stream, began_at)
                start = end
            number += len(entries)

    def read(self, start: int, stop: int) -> bytes:
        """The bytes from `start` to `stop`, whatever their stream. Raises `FileNotFoundError` once it was removed."""
        if self._data is not None:
            return os.pread(self._data, stop - start, start)
        if start >= stop:
            return b""
        descriptor = os.open(self._name + ".log", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(descriptor, stop - start, start)
        finally:
            os.close(descriptor)

    def frames(self, start: int, stop: int) -> Iterator[LogFrame]:
        """The bytes from `start` to `stop` in frames of at the most 256 KiB."""
        block, block_start = b"", start
        for run in self.runs(start, stop):
            offset = run.start
            while offset < run.end:
                if offset >= block_start + len(block):
                    block, block_start = self.read(offset, min(stop, offset + MAX_FRAME_PAYLOAD)), offset
                    if not block:
                        raise FileNotFoundError("the log was cut from outside")
                payload = block[offset - block_start : run.end - block_start]
                yield LogFrame(offset, run.stream, payload)
                offset += len(payload)

    def batches(self, start: int, stop: int) -> Iterator[list[LogFrame]]:
        """As `frames`, some 256 KiB at a time: short lines of both streams make a frame each."""
        batch: list[LogFrame] = []
        size = 0
        for frame in self.frames(start, stop):
            batch.append(frame)
            size += len(frame.payload) + FRAME_HEADER.size
            if size >= MAX_FRAME_PAYLOAD:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    async def follow(self, start: int) -> AsyncIterator[list[LogFrame]]:
        """Batches of frames from `start` on as they come, the end record alone and last.

        A follower that was there at the end gets what came before it; a later one gets what came after it too. Raises
        `FileNotFoundError` when the files were removed by somebody else.
        """
        self._followers += 1
        try:
            position = start
            # Taken once: the background children of a finished command may write for ever.
            final = self.size if self.end is not None else None
            while final is None:
                stop = self.size if self.end is None else self.end
                for batch in self.batches(position, stop):
                    yield batch
                position = max(position, stop)
                if self.end is not None and position >= self.end:
                    final = position
                elif self.end is None and self.size <= position:
                    await self.changed()
            for batch in self.batches(position, final):
                yield batch
            yield [LogFrame(self.end or 0, Stream.END, EXIT_CODE.pack(self.exit_code or 0))]
        finally:
            self._followers -= 1
            if self.removed and not self._followers:
                self.rest()

    def last_bytes(self) -> bytes:
        """At the most the last 64 KiB before the end record, or before now."""
        stop = self.size if self.end is None else self.end
        try:
            return self.read(max(0, stop - LAST_BYTES), stop)
        except FileNotFoundError:
            return b""

    async def changed(self) -> None:
        """Return at the next append, end or removal."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _write(self, stream: Stream, data: memoryview | bytes) -> int:
        """Data before index; how many bytes were kept."""
        view = memoryview(data)
        kept = 0
        try:
            descriptor = self._open()
            while kept < len(view):
                kept += os.write(descriptor, view[kept:])
        except OSError:
            self._truncated = True  # what could not be kept is counted by the caller
        if kept:
            self._extend(stream, kept)
        return kept

    def _open(self) -> int:
        if self._data is None:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._data = os.open(self._name + ".log", flags, 0o600)
            os.lseek(self._data, 0, os.SEEK_END)  # and not O_APPEND, with which nothing can be spliced
            self._index = os.open(self._name + ".runs", flags | os.O_APPEND, 0o600)
        return self._data

    def _extend(self, stream: Stream, length: int) -> None:
        """Lengthen the open run, or close it and open the next."""
        now = time.time_ns() // 1000
        if self._run is not None:
            former, began = self._run
            if former is not stream or now - began > _RUN_MICROSECONDS:
                self._close_run()
                self._run = (stream, now)
        else:
            self._run = (stream, now)
        self.size += length

    def _close_run(self) -> None:
        if self._run is None:
            return
        stream, began = self._run
        self._tail += _ENTRY.pack(self.size << 1 | (stream is Stream.STDERR), began)
        self._entries += 1
        if len(self._tail) >= _FLUSH_AT:
            self._flush_index()

    def _flush_index(self) -> None:
        if self._index is None or not self._tail:
            return
        try:
            written = os.write(self._index, self._tail)
        except OSError:
            return  # a full disk: the entries stay in memory, and the data file takes no further bytes either
        del self._tail[:written]

    def _drop(self, count: int, reason: str) -> None:
        if self.dropped == 0:
            self._truncated = True
            self._write(Stream.STDERR, f"\n[log truncated after {self.size} bytes: {reason}]\n".encode())
        self.dropped += count

    def _entries_from(self, number: int) -> list[tuple[int, Stream, float]]:
        """Some runs from `number` on: end, stream, beginning. The last of all is the one that is still open."""
        if number >= self._entries:
            stream, began = self._run if self._run is not None else (Stream.STDOUT, 0)
            return [(self.size, stream, began / 1e6)]
        flushed = self._entries - len(self._tail) // _ENTRY.size
        packed = (
            bytes(self._tail[(number - flushed) * _ENTRY.size :]) if number >= flushed else self._read_index(number)
        )
        return [
            (end >> 1, Stream.STDERR if end & 1 else Stream.STDOUT, began / 1e6)
            for end, began in _ENTRY.iter_unpack(packed[: len(packed) // _ENTRY.size * _ENTRY.size])
        ]

    def _read_index(self, number: int) -> bytes:
        if self._index is not None:
            return os.pread(self._index, _INDEX_BLOCK, number * _ENTRY.size)
        descriptor = os.open(self._name + ".runs", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(descriptor, _INDEX_BLOCK, number * _ENTRY.size)
        finally:
            os.close(descriptor)

    def _find(self, offset: int) -> int:
        """The number of the run that holds the byte at `offset`."""
        low, high = 0, self._entries
        while low < high:
            middle = (low + high) // 2
            if self._entries_from(middle)[0][0] <= offset:
                low = middle + 1
            else:
                high = middle
        return low
