"""How two streams of a command become one for the SDKs: marker bytes, lossless for any data, and the way back.

Three bytes 01 switch to stdout, three bytes 02 to stderr, and nothing escapes them. Data survives all the same because
a demultiplexer takes the *earliest* marker: a run of equal bytes is cut before its third, and the next message begins
with a marker again; where the byte before a marker equals the marker's own, the other stream's marker stands between.
"""

from collections.abc import Iterable
from typing import Final

from sandyard_daemon.wire import Stream

MARKERS: Final = {Stream.STDOUT: b"\x01\x01\x01", Stream.STDERR: b"\x02\x02\x02"}
OTHER: Final = {Stream.STDOUT: Stream.STDERR, Stream.STDERR: Stream.STDOUT}
MAX_MESSAGE: Final = 32 * 1024
"""Bytes, markers included: the TypeScript SDK fails on messages of 200 KB and is quadratic below."""

_MAX_PAYLOAD = MAX_MESSAGE - 6
_RUNS = (b"\x01\x01\x01", b"\x02\x02\x02")


class MarkerEncoder:
    """Turns the two streams of one log into messages that every SDK's demultiplexer reads back byte for byte.

    Each message is a marker (or two), then a payload of one stream that is not empty, at the most `MAX_MESSAGE` bytes,
    and ends at a character's end where the bytes are UTF-8: the first bytes of a character wait for its last. The
    messages must be sent in order, each as a WebSocket message or joined into one text.
    """

    def __init__(self) -> None:
        self._waiting = {Stream.STDOUT: b"", Stream.STDERR: b""}
        self._last_byte = -1

    def feed(self, stream: Stream, data: bytes) -> list[bytes]:
        """The messages for the next bytes of `stream` (`STDOUT` or `STDERR`)."""
        waiting = self._waiting[stream]
        if waiting:
            data = waiting + data
        keep = unfinished_character(data)
        self._waiting[stream] = data[len(data) - keep :] if keep else b""
        return self._messages(stream, data, len(data) - keep)

    def flush(self) -> list[bytes]:
        """What still waits for the rest of a character, as it is: for the end of the log, or after a silence."""
        messages: list[bytes] = []
        for stream, data in self._waiting.items():
            self._waiting[stream] = b""
            messages += self._messages(stream, data, len(data))
        return messages

    @property
    def held(self) -> int:
        """How many bytes were fed and are not in any message yet; at the most three of each stream."""
        return len(self._waiting[Stream.STDOUT]) + len(self._waiting[Stream.STDERR])

    def _messages(self, stream: Stream, data: bytes, end: int) -> list[bytes]:
        marker, other = MARKERS[stream], MARKERS[OTHER[stream]]
        messages = []
        start = 0
        while start < end:
            stop = _next_cut(data, start, end)
            prefix = other + marker if self._last_byte == marker[0] else marker
            messages.append(prefix + data[start:stop])
            self._last_byte = data[stop - 1]
            start = stop
        return messages


class Demultiplexer:
    """Reads marked text cut anywhere, as `MarkerEncoder` writes it. Bytes before the first marker are dropped."""

    def __init__(self) -> None:
        self._pending = b""
        self._stream: Stream | None = None

    def feed(self, data: bytes) -> list[tuple[Stream, bytes]]:
        """What can be told apart now; up to two bytes that may begin a marker wait for more."""
        return self._split(self._pending + data, final=False)

    def flush(self) -> list[tuple[Stream, bytes]]:
        """The bytes that waited, at the end."""
        return self._split(self._pending, final=True)

    def _split(self, data: bytes, *, final: bool) -> list[tuple[Stream, bytes]]:
        found: list[tuple[Stream, bytes]] = []
        while (hit := _earliest_marker(data)) is not None:
            position, stream = hit
            self._take(found, data[:position])
            self._stream = stream
            data = data[position + 3 :]
        keep = 0 if final else _marker_beginning(data)
        self._take(found, data[: len(data) - keep])
        self._pending = data[len(data) - keep :]
        return found

    def _take(self, found: list[tuple[Stream, bytes]], data: bytes) -> None:
        if data and self._stream is not None:
            found.append((self._stream, data))


def demultiplex(chunks: Iterable[bytes]) -> tuple[bytes, bytes]:
    """Stdout and stderr of a whole marked text."""
    streams = Demultiplexer()
    parts = {Stream.STDOUT: bytearray(), Stream.STDERR: bytearray()}
    for chunk in chunks:
        for stream, data in streams.feed(chunk):
            parts[stream] += data
    for stream, data in streams.flush():
        parts[stream] += data
    return bytes(parts[Stream.STDOUT]), bytes(parts[Stream.STDERR])


def _next_cut(data: bytes, start: int, end: int) -> int:
    """Where the message that begins at `start` must end."""
    stop = min(end, start + _MAX_PAYLOAD)
    if stop < end:
        stop -= unfinished_character(data[max(start, stop - 4) : stop])
    for run in _RUNS:
        position = data.find(run, start, stop)
        if position >= 0:
            stop = position + 2
    return stop


def unfinished_character(data: bytes) -> int:
    """How many bytes at the end begin a UTF-8 character that is not complete: 0 to 3."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        length = 2 if 0xC2 <= byte <= 0xDF else 3 if byte & 0xF0 == 0xE0 else 4 if 0xF0 <= byte <= 0xF4 else 1
        return back if length > back else 0
    return 0


def _earliest_marker(data: bytes) -> tuple[int, Stream] | None:
    hits = [(position, stream) for stream, marker in MARKERS.items() if (position := data.find(marker)) >= 0]
    return min(hits, default=None)


def _marker_beginning(data: bytes) -> int:
    """How many bytes at the end may be the beginning of a marker: 0 to 2."""
    if not data or data[-1] not in (1, 2):
        return 0
    return 2 if data[-2:] in (b"\x01\x01", b"\x02\x02") else 1
