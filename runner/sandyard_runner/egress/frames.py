"""The frames of an HTTP/2 connection as they come, so that one kind can be seen before the protocol's machine sees it.

That machine (`h2`) ends a connection with the first GOAWAY, while the requests under way may go on to their end
(RFC 9113 6.8): servers that are restarted, or end connections by their age, rely on that.
"""

import struct
from collections.abc import Iterator

import msgspec
from hyperframe.frame import GoAwayFrame

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES = 9
MAX_FRAME_BYTES = 1 << 14
"""What we take: the value that holds where settings say nothing."""
GOAWAY = 7


class BadFrame(Exception):
    """Bytes that are no frame we announced to take."""


class GoAway(msgspec.Struct, frozen=True):
    """No more requests than up to that one are answered on this connection."""

    last_stream: int
    code: int


class FrameReader:
    """Cuts bytes into frames, and takes the GOAWAYs out."""

    def __init__(self, *, is_client: bool) -> None:
        self._data = b""
        self._preface = len(PREFACE) if is_client else 0

    def feed(self, data: bytes) -> Iterator[bytes | GoAway]:
        """Whole frames, as bytes for the machine, and GOAWAYs. Raises `BadFrame`."""
        self._data += data
        if self._preface:
            if len(self._data) < self._preface:
                return
            yield self._take(self._preface)
            self._preface = 0
        while len(self._data) >= HEAD_BYTES:
            length = int.from_bytes(self._data[:3], "big")
            if length > MAX_FRAME_BYTES:
                raise BadFrame("a frame that is too long")
            if len(self._data) < HEAD_BYTES + length:
                return
            kind, stream = self._data[3], int.from_bytes(self._data[5:HEAD_BYTES], "big") & 0x7FFFFFFF
            frame = self._take(HEAD_BYTES + length)
            if kind == GOAWAY and stream == 0 and length >= 8:
                last, code = struct.unpack_from("!II", frame, HEAD_BYTES)
                yield GoAway(last & 0x7FFFFFFF, code)
            else:
                yield frame

    def _take(self, count: int) -> bytes:
        taken, self._data = self._data[:count], self._data[count:]
        return taken


def go_away(last_stream: int, code: int) -> bytes:
    """Such a frame."""
    return GoAwayFrame(0, last_stream_id=last_stream, error_code=code).serialize()
