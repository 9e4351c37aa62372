"""The newest part of a log as the bus brought it: one bounded, gapless piece that all followers of a command share."""

from bisect import bisect_right
from collections.abc import Sequence

from sandyard_daemon.wire import LogFrame

MAX_BYTES = 8 << 20
MAX_FRAMES = 8192
BATCH_BYTES = 1 << 20
SMALL_BYTES = 4096


class LiveWindow:
    """Frames from `start` to `end`. What came before has to be read from the file."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._frames: list[LogFrame] = []
        self.start: int | None = None
        """Offset of the first byte held; `None` while nothing came."""
        self.end = 0

    def add(self, frame: LogFrame) -> bool:
        """Take a frame in; whether it brought anything new. Behind a gap the window begins anew."""
        if self.start is None or frame.offset > self.end:
            self._frames.clear()
            self.start = self.end = frame.offset
        fresh = from_offset(frame, self.end)
        if fresh is None:
            return False
        self.end += len(fresh.payload)
        last = self._frames[-1] if self._frames else None
        if last is not None and last.stream is fresh.stream and len(last.payload) + len(fresh.payload) <= SMALL_BYTES:
            self._frames[-1] = LogFrame(last.offset, last.stream, last.payload + fresh.payload)
        else:
            self._frames.append(fresh)
            self._trim()
        return True

    def take(self, position: int) -> list[LogFrame]:
        """The frames that continue exactly at `position`, about `BATCH_BYTES` of them; none unless it is inside."""
        if self.start is None or not self.start <= position < self.end:
            return []
        index = bisect_right(self._frames, position, key=_offset) - 1
        first = from_offset(self._frames[index], position)
        taken = [first] if first is not None else []
        size = 0
        for frame in self._frames[index + 1 :]:
            size += len(frame.payload)
            if size > BATCH_BYTES:
                break
            taken.append(frame)
        return taken

    def _trim(self) -> None:
        """Let go of the oldest, a quarter at a time."""
        if self.end - (self.start or 0) <= self._max_bytes and len(self._frames) <= MAX_FRAMES:
            return
        keep_from = self.end - self._max_bytes * 3 // 4
        index = max(bisect_right(self._frames, keep_from, key=_offset), len(self._frames) - MAX_FRAMES * 3 // 4)
        del self._frames[: min(index, len(self._frames) - 1)]
        self.start = self._frames[0].offset


def _offset(frame: LogFrame) -> int:
    return frame.offset


def from_offset(frame: LogFrame, position: int) -> LogFrame | None:
    """The part of `frame` from `position` on; `None` when nothing of it is left."""
    skip = position - frame.offset
    if skip <= 0:
        return frame if frame.payload else None
    if skip >= len(frame.payload):
        return None
    return LogFrame(position, frame.stream, frame.payload[skip:])


def up_to(frame: LogFrame, end: int) -> LogFrame | None:
    """The part of `frame` before offset `end`; `None` when nothing of it is left."""
    keep = end - frame.offset
    if keep >= len(frame.payload):
        return frame
    return LogFrame(frame.offset, frame.stream, frame.payload[:keep]) if keep > 0 else None


def join_adjacent(frames: Sequence[LogFrame]) -> list[LogFrame]:
    """The same bytes in as few frames as possible."""
    joined: list[LogFrame] = []
    run: list[LogFrame] = []
    for frame in frames:
        if run and frame.stream is not run[0].stream:
            joined.append(_join(run))
            run = []
        run.append(frame)
    if run:
        joined.append(_join(run))
    return joined


def _join(run: list[LogFrame]) -> LogFrame:
    if len(run) == 1:
        return run[0]
    return LogFrame(run[0].offset, run[0].stream, b"".join(frame.payload for frame in run))
