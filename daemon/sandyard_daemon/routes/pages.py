"""JSON pages of a log, for curl and browsers: exact offsets, text or base64."""

import base64
from typing import Any

from sandyard_daemon.errors import timestamp
from sandyard_daemon.sessions.log import CommandLog, Run
from sandyard_daemon.wire import Stream
from sandyard_daemon.wire.markers import unfinished_character

DEFAULT_LIMIT = 256 << 10
MAX_LIMIT = 4 << 20
"""Bytes of log in one page."""

_CHANNELS = {Stream.STDOUT: "stdout", Stream.STDERR: "stderr"}


def page(log: CommandLog, cursor: int, limit: int, *, as_base64: bool) -> dict[str, Any]:
    """From offset `cursor` on, at the most `limit` bytes; `nextCursor` goes on exactly where this page ends.

    Text ends where a character does, so a page may be a little shorter; bytes that are not UTF-8 become U+FFFD.
    """
    start = min(cursor, log.size)
    stop = min(log.size, start + limit)
    frames = []
    position = start
    for run in _merged(log, start, stop):
        data = log.read(run.start, run.end)
        if not as_base64:
            data = _whole_characters(data, is_last=run.end == stop and _may_grow(log, stop))
        if data:
            text = base64.b64encode(data).decode() if as_base64 else data.decode("utf-8", "replace")
            frames.append(
                {
                    "cursor": run.start,
                    "channel": _CHANNELS[run.stream],
                    "data": text,
                    "timestamp": timestamp(run.began_at),
                }
            )
        position = run.start + len(data)
    return {"frames": frames, "nextCursor": position, "truncatedHead": False, "firstAvailableCursor": 0}


def _merged(log: CommandLog, start: int, stop: int) -> list[Run]:
    """Adjacent runs of one stream as one: the index also cuts them for the sake of their times."""
    merged: list[Run] = []
    for run in log.runs(start, stop):
        if merged and merged[-1].stream is run.stream:
            merged[-1] = merged[-1]._replace(end=run.end)
        else:
            merged.append(run)
    return merged


def _may_grow(log: CommandLog, stop: int) -> bool:
    return stop < log.size or log.end is None


def _whole_characters(data: bytes, *, is_last: bool) -> bytes:
    """Without the beginning of a character whose rest the next page will have."""
    keep = unfinished_character(data) if is_last else 0
    return data[: len(data) - keep] if keep < len(data) else data
