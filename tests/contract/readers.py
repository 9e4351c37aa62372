"""How the SDKs read a log stream, written down from sdk-wire.md 4.3 to 4.5: what each would hand to its callbacks."""

from collections.abc import Iterable

MARKERS = {b"\x01\x01\x01": "out", b"\x02\x02\x02": "err"}
MARKER_BYTES = 3
MAX_PAYLOAD = 32 * 1024


def split(data: bytes, stream: str | None = None) -> tuple[list[tuple[str, bytes]], str | None]:
    """The payloads between markers, and the stream that is current at the end; bytes before the first are dropped."""
    parts: list[tuple[str, bytes]] = []
    while data:
        found = [(data.find(marker), name) for marker, name in MARKERS.items() if marker in data]
        position, name = min(found, default=(len(data), stream))
        if stream is not None and position:
            parts.append((stream, data[:position]))
        stream, data = name, data[position + MARKER_BYTES :]
    return parts, stream


def ruby(messages: Iterable[bytes]) -> dict[str, bytes]:
    """The Ruby SDK forgets the current stream at each message."""
    return _joined(part for message in messages for part in split(message)[0])


def continuous(messages: Iterable[bytes]) -> dict[str, bytes]:
    """Python, TypeScript, Go and Java keep the current stream from message to message; markers may span two."""
    return _joined(split(b"".join(messages))[0])


def go(messages: Iterable[bytes]) -> list[tuple[str, bytes]]:
    """What the Go SDK hands out at each message, before the next comes: never the last two bytes of what it has."""
    shown: list[tuple[str, bytes]] = []
    held, stream = b"", None
    for message in messages:
        parts, stream = split(held + message, stream)
        ends_with_marker = message[-MARKER_BYTES:] in MARKERS
        held = b"" if ends_with_marker or not parts else parts[-1][1][1 - MARKER_BYTES :]
        if held:
            parts[-1] = (parts[-1][0], parts[-1][1][: -len(held)])
        shown += parts
    return shown


def _joined(parts: Iterable[tuple[str, bytes]]) -> dict[str, bytes]:
    streams: dict[str, list[bytes]] = {"out": [], "err": []}
    for stream, payload in parts:
        streams[stream].append(payload)
    return {stream: b"".join(payloads) for stream, payloads in streams.items()}


def assert_frame_rules(messages: Iterable[bytes]) -> None:
    """Rule 1 of sdk-wire.md 4.5: one marker and a payload of one stream, never empty, never over 32 KiB."""
    for message in messages:
        assert message[:MARKER_BYTES] in MARKERS, message[:20]
        payload = message[MARKER_BYTES:]
        assert payload, "a marker alone"
        assert len(payload) <= MAX_PAYLOAD
        assert not any(marker in payload for marker in MARKERS), "a marker inside the payload"
        payload.decode()  # these tests write UTF-8 only, so no character may be cut
