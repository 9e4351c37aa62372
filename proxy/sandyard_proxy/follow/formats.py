"""What a follower receives: marked messages, plain bytes, or Server-Sent Events, each able to resume by offset."""

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol

from sandyard_daemon.wire import LogFrame, Stream
from sandyard_daemon.wire.markers import MARKERS, MAX_MESSAGE, OTHER, MarkerEncoder

CHANNELS = {Stream.STDOUT: "stdout", Stream.STDERR: "stderr"}


class LogEncoder(Protocol):
    """Turns frames, in order, into what goes out."""

    def encode(self, frames: Sequence[LogFrame]) -> list[bytes]:
        """The messages for the next frames."""

    def flush(self) -> list[bytes]:
        """What was held back in hope of the rest of a character."""

    @property
    def holds(self) -> bool:
        """Whether `flush` would give something."""


class MarkedMessages:
    """Messages as the SDKs' demultiplexers want them: marker, then payload of one stream. *Source:* sdk-wire.md 4.5."""

    def __init__(self, *, lone_marker: bool = False, closing_marker: bool = False) -> None:
        self._encoder = MarkerEncoder()
        self._lone_marker = lone_marker
        self._closing_marker = closing_marker

    def encode(self, frames: Sequence[LogFrame]) -> list[bytes]:
        messages: list[bytes] = []
        stream = Stream.STDOUT
        for frame in frames:
            stream = frame.stream
            made = self._encoder.feed(stream, frame.payload)
            # Go's client shows a message without its last two bytes, which come before the next text, unless a marker
            # of this very message follows them: a line would be shown in two pieces, the second one late.
            messages += [each + _marker_after(each, stream) for each in made] if self._closing_marker else made
        if self._lone_marker and messages:
            # OkHttp's client shows a message only when the next marker comes.
            messages.append(_marker_after(messages[-1], stream))
        return messages

    def flush(self) -> list[bytes]:
        return self._encoder.flush()

    @property
    def holds(self) -> bool:
        return self._encoder.held > 0


class PlainMessages:
    """Both streams as they came, without markers, in messages that every client takes."""

    def encode(self, frames: Sequence[LogFrame]) -> list[bytes]:
        data = b"".join(frame.payload for frame in frames)
        return [data[start : start + MAX_MESSAGE] for start in range(0, len(data), MAX_MESSAGE)]

    def flush(self) -> list[bytes]:
        return []

    @property
    def holds(self) -> bool:
        return False


class ServerSentEvents:
    """One event per frame; its id is the offset after it, so that `Last-Event-ID` resumes with the next byte.

    Text is UTF-8 with replacement characters where it is not; base64 keeps every byte. A character whose end has not
    come waits for it, unless the other stream speaks in between.
    """

    MAX_DATA = 1 << 16

    def __init__(self, *, as_base64: bool = False) -> None:
        self._as_base64 = as_base64
        self._held: LogFrame | None = None

    def encode(self, frames: Sequence[LogFrame]) -> list[bytes]:
        events: list[bytes] = []
        for frame in frames:
            if self._held is not None and self._held.stream is not frame.stream:
                events += self.flush()
            if self._held is not None:
                frame = LogFrame(self._held.offset, frame.stream, self._held.payload + frame.payload)
                self._held = None
            events += self._events(frame)
        return events

    def flush(self) -> list[bytes]:
        held, self._held = self._held, None
        return [] if held is None else [self._event(held)]

    @property
    def holds(self) -> bool:
        return self._held is not None

    def ended(self, position: int, exit_code: int | None) -> bytes:
        """The last event: the command is over."""
        fields = {"cursor": position, "exitCode": exit_code}
        return b"id: %d\nevent: end\ndata: %b\n\n" % (position, json.dumps(fields).encode())

    def lost(self, reason: str) -> bytes:
        """The last event: the log cannot be followed any more."""
        return b"event: error\ndata: %b\n\n" % json.dumps({"message": reason}).encode()

    def _events(self, frame: LogFrame) -> list[bytes]:
        events = []
        start, size = 0, len(frame.payload)
        while start < size:
            stop = min(size, start + self.MAX_DATA)
            if not self._as_base64:
                stop -= _unfinished(frame.payload[start:stop])
            piece = LogFrame(frame.offset + start, frame.stream, frame.payload[start:stop])
            if not piece.payload:
                self._held = LogFrame(piece.offset, frame.stream, frame.payload[start:])
                break
            events.append(self._event(piece))
            start = stop
        return events

    def _event(self, frame: LogFrame) -> bytes:
        data = base64.b64encode(frame.payload).decode() if self._as_base64 else frame.payload.decode(errors="replace")
        fields = {
            "cursor": frame.offset,
            "channel": CHANNELS[frame.stream],
            "data": data,
            "timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        }
        after = frame.offset + len(frame.payload)
        return b"id: %d\ndata: %b\n\n" % (after, json.dumps(fields, ensure_ascii=False).encode())


def _marker_after(message: bytes, stream: Stream) -> bytes:
    """What says that `stream` goes on, and cannot be taken for a marker that begins with the message's last byte."""
    marker = MARKERS[stream]
    return MARKERS[OTHER[stream]] + marker if message[-1:] == marker[:1] else marker


def _unfinished(data: bytes) -> int:
    """How many bytes at the end only begin a UTF-8 character: 0 to 3."""
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte >= 0xC2:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return back if length > back and byte <= 0xF4 else 0
        if byte < 0x80:
            return 0
    return 0
