"""How the runner and the proxy reach a daemon: a connection to its door, which user code may replace by a link."""

import os
import socket
import stat
from pathlib import Path

DOOR_NAME = "door.sock"


class DoorError(Exception):
    """The door cannot be used now. Safe to repeat."""


class DoorMissing(DoorError):
    """No daemon listens there: not started yet, or gone."""


class DoorRefused(DoorError):
    """What stands there is not a socket, or cannot be opened by us."""


class DoorBusy(DoorError):
    """The daemon's queue of connections is full."""


def connect_door(path: str | Path) -> socket.socket:
    """A connected, non-blocking stream socket to the door at `path` (`<doors_dir>/<sandbox_id>/door.sock`).

    The caller closes it. Never follows a link and never blocks: the last component is opened by `O_PATH|O_NOFOLLOW`,
    checked to be a socket, and connected through its descriptor, which also lifts the limit of 108 bytes.
    Raises `DoorMissing`, `DoorRefused`, `DoorBusy`.
    """
    try:
        handle = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DoorMissing(str(path)) from error
    except OSError as error:
        raise DoorRefused(f"{path}: {error.strerror}") from error
    try:
        if not stat.S_ISSOCK(os.fstat(handle).st_mode):
            raise DoorRefused(f"{path} is not a socket")
        return _connect(f"/proc/self/fd/{handle}", path)
    finally:
        os.close(handle)


def _connect(address: str, path: str | Path) -> socket.socket:
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        door.connect(address)
    except BlockingIOError as error:
        door.close()
        raise DoorBusy(str(path)) from error
    except (ConnectionRefusedError, FileNotFoundError) as error:
        door.close()
        raise DoorMissing(str(path)) from error
    except OSError as error:
        door.close()
        raise DoorRefused(f"{path}: {error.strerror}") from error
    return door
