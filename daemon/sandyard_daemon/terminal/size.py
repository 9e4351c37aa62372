"""The size of a terminal and the pair of descriptors that is one."""

import os
import struct
import termios
from fcntl import ioctl
from typing import Any, NamedTuple

from sandyard_daemon.errors import BadRequest, Internal

LARGEST = 1000
"""Columns or rows."""


class Size(NamedTuple):
    """Columns by rows."""

    cols: int = 80
    rows: int = 24


def checked_size(cols: Any, rows: Any, *, default: Size | None = None) -> Size:
    """A size that a client sent; with a `default` either part may be missing or 0. Raises `BadRequest`."""
    return Size(_part("cols", cols, default and default.cols), _part("rows", rows, default and default.rows))


def _part(name: str, value: Any, default: int | None) -> int:
    if default is not None and (value is None or value == 0) and value is not False:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= LARGEST:
        raise BadRequest(f"{name} must be a whole number from 1 to {LARGEST}")
    return value


def open_terminal(size: Size) -> tuple[int, int]:
    """The near side, which is ours, and the far side, which is the program's. Raises `Internal`."""
    try:
        near, far = os.openpty()
    except OSError as error:
        raise Internal(f"this sandbox has no terminals: {error.strerror}") from error
    set_size(near, size)
    return near, far


def set_size(near: int, size: Size) -> None:
    """Tell the kernel, which tells the programs by SIGWINCH when it changed."""
    ioctl(near, termios.TIOCSWINSZ, struct.pack("HHHH", size.rows, size.cols, 0, 0))
