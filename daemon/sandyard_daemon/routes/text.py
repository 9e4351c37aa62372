"""Logs as text: JSON of any length and marked text, made while they are sent and never held whole."""

import codecs
import json
from collections.abc import AsyncIterator, Iterator

from sandyard_daemon.sessions.log import CommandLog
from sandyard_daemon.wire import Stream
from sandyard_daemon.wire.markers import MarkerEncoder
from sandyard_daemon.wire.versions import LogFormat

_GATHER = 64 << 10

BOTH = (Stream.STDOUT, Stream.STDERR)


async def plain(log: CommandLog, stop: int) -> AsyncIterator[bytes]:
    """Both streams in arrival order, as they are."""
    for frame in log.frames(0, stop):
        yield frame.payload


async def marked(log: CommandLog, stop: int) -> AsyncIterator[bytes]:
    """Both streams with markers."""
    for piece in _gathered(_messages(log, stop)):
        yield piece


async def json_logs(log: CommandLog, stop: int) -> AsyncIterator[bytes]:
    """`{"output", "stdout", "stderr"}`."""
    yield b'{"output": "'
    for piece in _texts(log, stop, BOTH):
        yield piece
    yield b'", "stdout": "'
    for piece in _texts(log, stop, BOTH[:1]):
        yield piece
    yield b'", "stderr": "'
    for piece in _texts(log, stop, BOTH[1:]):
        yield piece
    yield b'"}'


async def json_execution(
    command_id: str, log: CommandLog, *, has_markers: bool, has_streams: bool
) -> AsyncIterator[bytes]:
    """The answer of a synchronous exec: `{"cmdId", "exitCode", "output"[, "stdout", "stderr"]}`."""
    stop = log.size if log.end is None else log.end
    yield b'{"cmdId": %s, "exitCode": %d, "output": "' % (json.dumps(command_id).encode(), log.exit_code or 0)
    pieces = _marked_texts(log, stop) if has_markers else _texts(log, stop, BOTH)
    for piece in pieces:
        yield piece
    if has_streams:
        yield b'", "stdout": "'
        for piece in _texts(log, stop, BOTH[:1]):
            yield piece
        yield b'", "stderr": "'
        for piece in _texts(log, stop, BOTH[1:]):
            yield piece
    yield b'"}'


def log_body(log: CommandLog, form: LogFormat) -> tuple[str, AsyncIterator[bytes]]:
    """Content type and body of a log as it is now."""
    if form is LogFormat.JSON:
        return "application/json", json_logs(log, log.size)
    body = plain(log, log.size) if form is LogFormat.PLAIN else marked(log, log.size)
    return "text/plain; charset=utf-8", body


def json_text(text: str) -> bytes:
    """`text` as it stands between the quotes of a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1].encode("utf-8", "replace")


def _messages(log: CommandLog, stop: int) -> Iterator[bytes]:
    encoder = MarkerEncoder()
    for frame in log.frames(0, stop):
        yield from encoder.feed(frame.stream, frame.payload)
    yield from encoder.flush()


def _marked_texts(log: CommandLog, stop: int) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for piece in _gathered(_messages(log, stop)):
        yield json_text(decoder.decode(piece))
    yield json_text(decoder.decode(b"", final=True))


def _texts(log: CommandLog, stop: int, streams: tuple[Stream, ...]) -> Iterator[bytes]:
    """The inside of a JSON string; a decoder per stream, since one's character may be cut by the other's bytes."""
    decoders = {stream: codecs.getincrementaldecoder("utf-8")("replace") for stream in streams}
    parts = (decoders[frame.stream].decode(frame.payload) for frame in log.frames(0, stop) if frame.stream in decoders)
    yield from _gathered(json_text(part) for part in parts)
    for decoder in decoders.values():
        yield json_text(decoder.decode(b"", final=True))


def _gathered(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Small pieces joined into larger ones: a write each would cost more than the bytes."""
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= _GATHER:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)
