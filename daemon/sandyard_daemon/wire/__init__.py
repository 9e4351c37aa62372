"""What the daemon serves to the runner and the proxy beside the public toolbox API.

Every request on the door carries the header `X-Sandyard-Door: <secret>`; without it the answer is 401.

GET /_daemon/health
    200 `{"version", "pid", "last_event", "sessions", ...}`; `last_event` is the number of the newest event.
GET /_daemon/mounts
    200 `{"mounts": [[device, root], ...]}` of every mount, as they stand in mountinfo.
GET /_daemon/events?after=N
    Newline-delimited JSON `Event`s with rising `number`, those after N first, then live; an empty line every 10 s.
    `after` also acknowledges: the daemon may forget events up to N.
GET /_daemon/logs/{session}/{command}?cursor=N[&limit=BYTES][&follow=true]
    Log frames from offset N: without `follow` up to the current end, with it until the end record. A command
    that dies with its session ends like any other, with the signal's exit code. 404 as JSON envelope.
GET /_daemon/logs/{session}/{command}?head
    JSON `LogHead`.

Four WebSockets, loaded by their first request (`gateway_client.py` speaks them but for the second):

GET /_daemon/exec
    The first message, text, says what to run: `{"command", "cwd", "envs", "pty": {"cols", "rows", "term"}, "login"}`,
    every key optional; without a command the shell itself, without `pty` on three pipes. The answer is
    `{"type": "started"}` or `{"type": "error", "error"}` and the close. Then binary messages: a byte for the stream (0
    standard input, to the daemon; 1 output, 2 errors, from it) and the stream's bytes. Text messages to the daemon:
    `{"type": "eof"}`, `{"type": "resize", "cols", "rows"}`, `{"type": "signal", "name": "INT"}`. From it
    `{"type": "taken", "bytes"}`: so much more input waits no longer. A client that keeps what waits below 1 MiB is
    always read; beyond it, it is closed with 1008 where the program reads nothing for 10 s. The last message is
    `{"type": "exited", "exitCode", "exitReason", "signal"}` (128 + n after a signal, `signal` its name), then close
    1000. A client that goes before that hangs up on everything the program started.
GET /_daemon/terminal?cols=&rows=&cwd=
    A login shell on a terminal. Output as text cut at characters. What comes is typed, but for a text message that
    is `{"rows", "cols"}` and nothing else, a resize. Close 1000 with `{"exitCode", "exitReason"}` as reason.
GET /_daemon/forward/{port} and GET /_daemon/forward/unix?path=
    A connection to the sandbox's loopback or to a unix socket in it; 502 where nothing answers. Binary messages are
    its bytes; the text message `{"type": "eof"}` ends one direction, the close both.
GET /_daemon/listen?port= or ?path=
    Listens on loopback (0: any free port) or on a new unix socket until the close. First comes `{"type": "listening",
    "port"}`, then for each connection `{"type": "accepted", "id", "origin": [host, port]}`. 502 where that cannot be.
GET /_daemon/forward/accepted?id=
    Such a connection, within 15 s; the rest is as of other forwarded ones.
GET /_daemon/fs
    Binary messages made by `wire.messages`: a JSON head and bytes. To the daemon `{"id", "op", ...}`, back
    `{"id", ...}` or `{"id", "error": "ENOENT", "message"}`, one for each, in order. A relative path begins at the
    user's home. What is open is closed with the socket. By `op`, with [what else comes back]:
    open path access=r|w|rw create= truncate= exclusive= append= mode= [handle]; close handle; fsync handle;
    read handle offset size [the bytes, at the most 256 KiB, none at the end]; write handle offset, the bytes behind;
    opendir path [handle]; readdir handle [entries, each a name with attributes; none at the end];
    stat, lstat path, fstat handle [mode size uid gid nlink atime_ns mtime_ns ctime_ns];
    setstat path, fsetstat handle: size= mode= uid= gid= atime_ns= mtime_ns= follow=false; statvfs path [what it has];
    realpath, readlink path [path]; mkdir path mode=; rmdir, remove path; rename path to replace=true;
    link path to; symlink path target.

A log frame is a 13-byte header, `>QBI` = offset of its first payload byte, stream, payload length, and the payload.
Offsets count the payload bytes of both streams in arrival order. The end record has stream `END`, the log's size at the
command's end as offset and 8 bytes of payload: `>q`, the exit code.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

DOOR_HEADER = "X-Sandyard-Door"
OWN_ERROR_HEADER = "X-Sandyard-Daemon-Error"
"""On every error that is the daemon's own, with its code: so a 502 of `/proxy/{port}` is not taken for the user's."""
FRAME_HEADER = struct.Struct(">QBI")
EXIT_CODE = struct.Struct(">q")
MAX_FRAME_PAYLOAD = 1 << 18
"""Bytes; no writer sends a longer frame, and a reader may refuse one."""


class Stream(IntEnum):
    """Which stream a log frame belongs to; the number is also the byte of the public marker."""

    STDOUT = 1
    STDERR = 2
    END = 255


@dataclass(frozen=True, slots=True)
class LogFrame:
    """Adjacent bytes of one stream, or the end record."""

    offset: int
    stream: Stream
    payload: bytes

    def encode(self) -> bytes:
        """The frame as it travels."""
        return FRAME_HEADER.pack(self.offset, self.stream, len(self.payload)) + self.payload


class FrameDecoder:
    """Takes chunks cut anywhere and gives whole frames. Raises `ValueError` on bytes that cannot be frames."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, chunk: bytes) -> Iterator[LogFrame]:
        """Every frame that is complete now."""
        pending = self._pending
        pending += chunk
        start = 0
        while len(pending) - start >= FRAME_HEADER.size:
            offset, stream, length = FRAME_HEADER.unpack_from(pending, start)
            if length > MAX_FRAME_PAYLOAD:
                raise ValueError(f"a log frame of {length} bytes")
            end = start + FRAME_HEADER.size + length
            if len(pending) < end:
                break
            payload = bytes(memoryview(pending)[start + FRAME_HEADER.size : end])
            start = end
            yield LogFrame(offset, Stream(stream), payload)
        del pending[:start]


@dataclass(frozen=True, slots=True)
class LogHead:
    """What is known of one log. Sizes and offsets in payload bytes."""

    size: int
    end: int | None = None
    """Offset of the end record; `None` while the command runs."""
    exit_code: int | None = None
    dropped: int = 0
    """Bytes past the cap that were counted and not kept."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a session or command; what the database learns of them.

    `kind`: `session_created`, `session_ended`, `command_created`, `command_started`, `command_ended`.
    """

    number: int
    kind: str
    at: str
    """RFC 3339."""
    session_id: str
    command_id: str | None = None
    command: str | None = None
    exit_code: int | None = None
    log_size: int = 0
    last_lines: str = ""
    """With `command_ended`: base64 of at the most the last 64 KiB of both streams in order."""
