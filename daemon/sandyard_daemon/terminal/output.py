"""What a terminal wrote last: one bounded window for all clients, and a safe place in it for those who come late."""

import re

REPLAY = 256 << 10
"""Bytes of earlier output for a client that comes late."""
MAX_BEHIND = 2 << 20
"""Bytes a client may be behind the newest output; one that is slower is a slow consumer."""
PIECE = 32 << 10
"""Bytes of one message at the most."""

_SLACK = 64 << 10
_SEARCH = 8 << 10
"""How far into the window a line's begin is looked for."""
_QUESTION = re.compile(
    rb"\x1b\[(?:[>=]?0?c|\??[56]n|>0?q|\?[0-9;]+\$p|1[468]t|2[01]t)"  # who are you, where are you, how large
    rb"|\x1bZ|\x05|\x1bP[+$]q[^\x1b]{0,256}\x1b\\"
    rb"|\x1b\](?:1[0-9]|4;[0-9]+|52;[a-z]*);\?(?:\x07|\x1b\\)"
)
"""What an emulator answers: a late client must not type answers to questions that were asked long ago."""


class Output:
    """Bytes by their offset since the terminal's start; the oldest are forgotten."""

    def __init__(self) -> None:
        self._data = bytearray()
        self.start = 0
        """Offset of the first byte that is still known."""

    @property
    def end(self) -> int:
        """Offset behind the newest byte."""
        return self.start + len(self._data)

    def append(self, data: bytes, slowest: int) -> None:
        """Keep more; forget what all readers have (`slowest` is the least of their offsets) or are too late for."""
        self._data += data
        keep_from = max(self.end - MAX_BEHIND, min(slowest, self.end - REPLAY))
        if keep_from - self.start > _SLACK:
            del self._data[: keep_from - self.start]
            self.start = keep_from

    def read(self, offset: int) -> bytes:
        """Bytes from `offset`, which is not before `start`; empty at the end."""
        return bytes(self._data[offset - self.start : offset - self.start + PIECE])

    def replay(self, *, with_questions: bool) -> bytes:
        """The newest output, begun at a line or at least not inside a character or a control sequence.

        `with_questions`: nobody has seen, and so answered, what programs asked the emulator.
        """
        start = max(0, len(self._data) - REPLAY)
        recent = bytes(self._data[start:])
        if self.start + start > 0:
            recent = recent[_safe_begin(recent) :]
        return recent if with_questions else _QUESTION.sub(b"", recent)


def _safe_begin(data: bytes) -> int:
    line = data.find(b"\n", 0, _SEARCH)
    if line >= 0:
        return line + 1
    sequence = data.find(b"\x1b", 0, _SEARCH)
    if sequence >= 0:
        return sequence
    character = 0
    while character < min(4, len(data)) and data[character] & 0xC0 == 0x80:
        character += 1
    return character
