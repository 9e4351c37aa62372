"""Taking the framing off aws-chunked bodies, checking the chunks' signatures where they carry any."""

import hmac
import re
from collections.abc import AsyncIterator, Callable

CHUNK_HEAD = re.compile(rb"([0-9a-fA-F]{1,8})(?:;chunk-signature=([0-9a-f]{64}))?")
MAX_LINE = 4096
MAX_CHUNK_BYTES = 64 << 20
SIGNED = frozenset({"STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"})
UNSIGNED = frozenset({"STREAMING-UNSIGNED-PAYLOAD-TRAILER"})

Sign = Callable[[str, bytes], str]
"""Gives the signature of a chunk from the one before it."""


class MalformedChunks(Exception):
    """The framing is broken, or a chunk's signature is wrong."""


async def chunks_of(body: AsyncIterator[bytes], sign: Sign | None, seed: str) -> AsyncIterator[bytes]:
    """The payload of an aws-chunked body; with `sign` each chunk is checked. Trailers are read and left alone.

    Raises `MalformedChunks`.
    """
    buffer, before = _Buffer(body), seed
    while True:
        match = CHUNK_HEAD.fullmatch(await buffer.line())
        if match is None:
            raise MalformedChunks("a chunk's head is malformed")
        size = int(match[1], 16)
        if size > MAX_CHUNK_BYTES:
            raise MalformedChunks("a chunk is too large")
        chunk = await buffer.exactly(size)
        if sign is not None:
            before = _checked(sign(before, chunk), match[2])
        if size == 0:
            await buffer.drain()
            return
        if await buffer.line() != b"":
            raise MalformedChunks("a chunk does not end where it should")
        yield chunk


def _checked(expected: str, given: bytes | None) -> str:
    if given is None or not hmac.compare_digest(expected.encode(), given):
        raise MalformedChunks("a chunk's signature is not the one that we calculate")
    return expected


class _Buffer:
    """Lines and counted bytes out of pieces of any size."""

    def __init__(self, body: AsyncIterator[bytes]) -> None:
        self._body = body
        self._held = bytearray()

    async def line(self) -> bytes:
        while (end := self._held.find(b"\r\n")) < 0:
            if len(self._held) > MAX_LINE:
                raise MalformedChunks("a line of the framing is too long")
            await self._more()
        line = bytes(self._held[:end])
        del self._held[: end + 2]
        return line

    async def exactly(self, size: int) -> bytes:
        while len(self._held) < size:
            await self._more()
        piece = bytes(self._held[:size])
        del self._held[:size]
        return piece

    async def drain(self) -> None:
        async for piece in self._body:
            if len(self._held) + len(piece) > MAX_LINE:
                raise MalformedChunks("the trailer is too long")
            self._held += piece

    async def _more(self) -> None:
        try:
            self._held += await anext(self._body)
        except StopAsyncIteration:
            raise MalformedChunks("the body ends too early") from None
