"""JSON with bytes behind it, in one binary WebSocket message: a big-endian length of the JSON, the JSON, the bytes."""

import json
import struct
from typing import Any

_LENGTH = struct.Struct(">I")


def pack(head: dict[str, Any], payload: bytes = b"") -> bytes:
    """One message."""
    text = json.dumps(head, separators=(",", ":")).encode()
    return _LENGTH.pack(len(text)) + text + payload


def unpack(message: bytes) -> tuple[dict[str, Any], bytes]:
    """Head and payload. Raises `ValueError`."""
    if len(message) < _LENGTH.size:
        raise ValueError("a message without a head")
    (length,) = _LENGTH.unpack_from(message)
    try:
        head = json.loads(message[_LENGTH.size : _LENGTH.size + length])
    except RecursionError as error:
        raise ValueError("a head that is nested too deep") from error
    if not isinstance(head, dict):
        raise ValueError("a head that is not a JSON object")
    return head, message[_LENGTH.size + length :]
