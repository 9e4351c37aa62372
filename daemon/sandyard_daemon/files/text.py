"""Looking for a literal text in a file, block by block: memory does not grow with the file or its lines."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

FIRST_BLOCK = 64 << 10
"""Most files are smaller; larger buffers would cost more than their reading."""
BLOCK = 1 << 20
MAX_LINE = 4 << 20
"""Bytes of a line that are looked at together; a longer one is told once, by its first match."""
MAX_CONTENT = 64 << 10
"""Bytes of a line that are told, around the match."""
BINARY_BYTES = 512


@dataclass(frozen=True, slots=True)
class Pattern:
    """A text to look for."""

    text: bytes

    @property
    def spans_lines(self) -> bool:
        """No line holds it."""
        return b"\n" in self.text


class Line(NamedTuple):
    """One line that holds the text; `number` counts from 1."""

    number: int
    content: bytes


def lines_with(descriptor: int, pattern: Pattern) -> Iterator[Line | None]:
    """The lines that hold the text, `None` now and then; closes the descriptor. Binary files have none.

    Raises `OSError`.
    """
    try:
        data = os.read(descriptor, FIRST_BLOCK)
        if b"\0" in data[:BINARY_BYTES] or pattern.spans_lines:
            return
        if len(data) < FIRST_BLOCK:
            if pattern.text in data:
                yield from _matches(data, pattern.text, 1)
            return
        yield from _long_file(descriptor, data, pattern.text)
    finally:
        os.close(descriptor)


def _long_file(descriptor: int, data: bytes, text: bytes) -> Iterator[Line | None]:
    number = 1
    inside_told_line = False
    while True:
        block = os.read(descriptor, BLOCK)
        if inside_told_line:
            end = data.find(b"\n") + 1
            inside_told_line = end == 0
            data = data[end:] if end else b""
            number += 1 if end else 0
        end = data.rfind(b"\n") + 1 if block else len(data)
        if end:
            yield from _matches(data[:end], text, number)
            number += data.count(b"\n", 0, end)
            data = data[end:]
        elif len(data) > MAX_LINE:
            inside_told_line = text in data
            yield from _matches(data, text, number)
            data = b"" if inside_told_line else data[-len(text) :]
        if not block:
            return
        data += block
        yield None


def _matches(data: bytes, text: bytes, number: int) -> Iterator[Line | None]:
    """Of whole lines, the first of which has this number."""
    start = 0
    while (at := data.find(text, start)) >= 0:
        begin = data.rfind(b"\n", 0, at) + 1
        end = data.find(b"\n", at)
        end = len(data) if end < 0 else end
        number += data.count(b"\n", start, begin)
        if end - begin > MAX_CONTENT:
            begin = max(begin, at - MAX_CONTENT // 2)
        yield Line(number, data[begin : min(end, begin + MAX_CONTENT)].removesuffix(b"\r"))
        start = end + 1
        number += 1
