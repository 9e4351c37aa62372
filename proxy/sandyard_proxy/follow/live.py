"""What came over the bus and was not delivered yet: bounded, possibly with gaps, repetitions and strange order."""

from collections import deque
from collections.abc import Sequence

from sandyard_daemon.wire import LogFrame

MAX_BYTES = 8 << 20
MAX_FRAMES = 8192
BATCH_BYTES = 1 << 20


class LiveBuffer:
    """Frames in the order they came. Overflow discards everything: the file has it all."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._frames: deque[LogFrame] = deque()
        self._bytes = 0
        self.discarded_bytes = 0

    def offer(self, frame: LogFrame) -> None:
        """Keep a frame for later."""
        if self._bytes + len(frame.payload) > self._max_bytes or len(self._frames) >= MAX_FRAMES:
            self.discarded_bytes += self._bytes
            self._frames.clear()
            self._bytes = 0
        self._frames.append(frame)
        self._bytes += len(frame.payload)

    def take(self, position: int) -> list[LogFrame]:
        """The frames that continue exactly at `position`, about `BATCH_BYTES` of them; what lies before is dropped."""
        taken: list[LogFrame] = []
        size = 0
        while self._frames and size < BATCH_BYTES and self._frames[0].offset <= position:
            frame = self._frames.popleft()
            self._bytes -= len(frame.payload)
            if (rest := from_offset(frame, position)) is not None:
                taken.append(rest)
                position += len(rest.payload)
                size += len(rest.payload)
        return taken

    @property
    def next_offset(self) -> int | None:
        """Where the oldest kept frame begins; after `take` it lies ahead of the position: there is a gap."""
        return self._frames[0].offset if self._frames else None


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
