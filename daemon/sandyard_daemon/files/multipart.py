"""`multipart/form-data` as it arrives: one part after the other, none of them kept.

*Source:* RFC 2046 section 5.1 and RFC 7578.
"""

import re
from collections.abc import AsyncIterator

from sandyard_daemon.errors import BadRequest

MAX_HEAD = 16 << 10
"""Bytes of the header lines of one part."""
MAX_BOUNDARY = 200

_BOUNDARY = re.compile(r'boundary=(?:"([^"]+)"|([^\s;,"]+))', re.IGNORECASE)
_NAME = re.compile(r'(?:^|;)\s*name=(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))', re.IGNORECASE)
_ESCAPED = re.compile(r"\\(.)")


class BrokenForm(BadRequest):
    """The form cannot be read any further."""


def boundary_of(content_type: str | None) -> bytes | None:
    """The boundary of a multipart form; `None` where the body is something else. Raises `BadRequest`."""
    kind, _, parameters = (content_type or "").partition(";")
    if kind.strip().lower() != "multipart/form-data":
        return None
    found = _BOUNDARY.search(parameters)
    if found is None:
        raise BadRequest("multipart/form-data without a boundary")
    text = found[1] or found[2]
    if len(text) > MAX_BOUNDARY:
        raise BadRequest("the boundary is too long")
    return text.encode("latin-1")


class Form:
    """The parts of one body. Read each part's `pieces` to the end, or go on: the rest of it is skipped then."""

    def __init__(self, chunks: AsyncIterator[bytes], boundary: bytes) -> None:
        self._chunks = chunks
        self._delimiter = b"\r\n--" + boundary
        self._data = b"\r\n"  # as if a line had ended: the first delimiter may stand at the very start
        self._in_part = True
        self._ended = False

    async def parts(self) -> AsyncIterator[str]:
        """The name of each part; its bytes are `pieces`. Raises `BrokenForm` for a body that is broken off."""
        while True:
            async for _ in self.pieces():
                pass
            if self._ended:
                return
            name = await self._head()
            self._in_part = True
            yield name

    async def pieces(self) -> AsyncIterator[bytes]:
        """The bytes of the part that `parts` named last, as they arrive. Raises `BrokenForm`."""
        keep = len(self._delimiter) - 1
        while self._in_part:
            at = self._data.find(self._delimiter)
            if at < 0:
                # Only what could be the start of a delimiter waits for more.
                start = self._data.find(b"\r", max(0, len(self._data) - keep))
                ready, self._data = (self._data, b"") if start < 0 else (self._data[:start], self._data[start:])
                if ready:
                    yield ready
                await self._more()
                continue
            behind = at + len(self._delimiter)
            while len(self._data) < behind + 2:
                await self._more()
            if not self._data.startswith((b"\r\n", b"--", b" ", b"\t"), behind):  # a longer word, not the boundary
                yield self._data[:behind]
                self._data = self._data[behind:]
                continue
            ready, self._data = self._data[:at], self._data[behind:]
            self._in_part = False
            self._ended = self._data.startswith(b"--")
            if ready:
                yield ready

    async def _head(self) -> str:
        while (end := self._data.find(b"\r\n\r\n")) < 0:
            if len(self._data) > MAX_HEAD:
                raise BrokenForm("the header lines of a part are too long")
            await self._more()
        if end > MAX_HEAD:
            raise BrokenForm("the header lines of a part are too long")
        lines = self._data[:end].decode("utf-8", "surrogateescape").split("\r\n")
        self._data = self._data[end + 4 :]
        for line in lines:
            name, _, value = line.partition(":")
            if name.strip().lower() == "content-disposition":
                found = _NAME.search(value)
                if found is not None:
                    return _ESCAPED.sub(r"\1", found[1]) if found[1] is not None else found[2]
        raise BrokenForm("a part of the form has no name")

    async def _more(self) -> None:
        try:
            self._data += await anext(self._chunks)
        except StopAsyncIteration:
            raise BrokenForm("the form ends before its last boundary") from None
