"""A client that follows a log as fast as Python can: large reads, frames parsed in place, the payload hashed."""

import hashlib
import os
import selectors
import socket
import struct
import time
from base64 import b64encode
from collections.abc import Sequence
from urllib.parse import urlsplit

from tests.contract.toolbox import Toolbox, command_path

CHUNK = 1 << 20
CONNECT_SECONDS = 30
MARKERS = (b"\x01\x01\x01", b"\x02\x02\x02")
TEXT, BINARY, CLOSE = 1, 2, 8
LONGEST_PREFIX = 10 + 6
"""Bytes of a frame's header and of the two markers that may begin a message."""


class Follower:
    """One follower of one command's log. Counts and hashes payload without its markers, both streams together."""

    def __init__(self, toolbox: Toolbox, session: str, command_id: str) -> None:
        parts = urlsplit(toolbox.base)
        target = f"{parts.path}{command_path(session, command_id)}/logs?follow=true"
        self.socket = socket.create_connection((parts.hostname or "", parts.port or 80), CONNECT_SECONDS)
        self.bytes = 0
        self.first_at = 0.0
        """`time.monotonic()` of the first payload."""
        self.closed_at = 0.0
        self.close_code: int | None = None
        self._hash = hashlib.blake2b(digest_size=16)
        self._left = 0
        self._tail = b""
        self._open(target, parts.netloc, toolbox.headers["Authorization"])

    @property
    def digest(self) -> str:
        """Of the payload so far."""
        return self._hash.hexdigest()

    def read(self) -> bool:
        """Take what is there, or wait for it. False when the stream is over."""
        chunk = self.socket.recv(CHUNK)
        if chunk and self.close_code is None:
            self._feed(chunk)
        over = not chunk or self.close_code is not None
        if over and not self.closed_at:
            self.closed_at = time.monotonic()
        return not over

    def read_all(self, seconds: float) -> None:
        """Read to the end of the stream. Raises `TimeoutError` after a silence of `seconds`."""
        self.socket.settimeout(seconds)
        while self.read():
            pass

    def _open(self, target: str, host: str, authorization: str) -> None:
        key = b64encode(os.urandom(16)).decode()
        lines = (
            f"GET {target} HTTP/1.1",
            f"Host: {host}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
            f"Authorization: {authorization}",
            "X-Daytona-SDK-Version: 0.226.1",
        )
        self.socket.sendall("\r\n".join((*lines, "", "")).encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            chunk = self.socket.recv(CHUNK)
            assert chunk, f"the connection ended during the upgrade: {answer!r}"
            answer += chunk
        head, _, rest = answer.partition(b"\r\n\r\n")
        assert b" 101 " in head.partition(b"\r\n")[0], answer
        if rest:
            self._feed(rest)

    def _feed(self, chunk: bytes) -> None:
        data = self._tail + chunk if self._tail else chunk
        view, position = memoryview(data), 0
        while position < len(data):
            if self._left:
                taken = min(self._left, len(data) - position)
                self._hash.update(view[position : position + taken])
                self.bytes += taken
                self._left -= taken
                position += taken
                continue
            prefix = _frame_prefix(data, position)
            if prefix is None:
                break
            position, self._left = self._begin(data, *prefix)
            if self.close_code is not None:
                break
        self._tail = data[position:]

    def _begin(self, data: bytes, opcode: int, start: int, length: int) -> tuple[int, int]:
        """Where the payload behind the markers begins, and how much of it the frame has."""
        if opcode == CLOSE:
            self.close_code = struct.unpack_from(">H", data, start)[0] if length else 1005
            return start, 0
        end = start + length
        if opcode not in (TEXT, BINARY):
            return end, 0
        self.first_at = self.first_at or time.monotonic()
        while start + 3 <= end and data[start : start + 3] in MARKERS:
            start += 3
        return start, end - start


def read_together(followers: Sequence[Follower], seconds: float) -> None:
    """Read all of them to their ends. Raises `TimeoutError` when none has anything for `seconds`."""
    with selectors.DefaultSelector() as selector:
        for follower in followers:
            selector.register(follower.socket, selectors.EVENT_READ, follower)
        while selector.get_map():
            ready = selector.select(seconds)
            if not ready:
                raise TimeoutError(f"{len(selector.get_map())} followers wait for more")
            for key, _ in ready:
                if not key.data.read():
                    selector.unregister(key.fileobj)


def _frame_prefix(data: bytes, position: int) -> tuple[int, int, int] | None:
    """Opcode, payload's position and length of the frame there; `None` when more must be read to tell."""
    there = len(data) - position
    if there < 2:
        return None
    short = data[position + 1] & 0x7F
    size = 2 if short < 126 else 4 if short == 126 else 10
    if there < size:
        return None
    length = short if short < 126 else int.from_bytes(data[position + 2 : position + size], "big")
    # Markers and control frames are read at once, so they must be here whole.
    if there < size + min(length, LONGEST_PREFIX):
        return None
    return data[position] & 0x0F, position + size, length
