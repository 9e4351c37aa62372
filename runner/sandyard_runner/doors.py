"""Doors: the directory through which a sandbox's daemon is reached, its secret, and knowing when the daemon answers."""

import asyncio
import contextlib
import ctypes
import os
import shutil
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sandyard_daemon.client import DOOR_NAME, DoorError, connect_door
from sandyard_daemon.wire import DOOR_HEADER
from sandyard_runner.errors import DaemonUnreachable

SECRET_NAME = "secret"  # noqa: S105  the file's name
ANSWER_TIMEOUT_SECONDS = 5.0
RECHECK_SECONDS = 0.25
"""How often to look again where the kernel's notice did not come, such as on a file system without inotify."""

_IN_CREATE, _IN_MOVED_TO, _IN_ATTRIB = 0x100, 0x80, 0x4


def door_path(doors_dir: Path, sandbox_id: str) -> Path:
    """The daemon's socket as the runner and the proxy see it."""
    return doors_dir / sandbox_id / DOOR_NAME


def prepare_door(doors_dir: Path, sandbox_id: str, secret: str, *, uid: int | None = None, gid: int = -1) -> Path:
    """A fresh door directory with the secret in it, for the daemon's user `uid` where that is not ours.

    What an earlier daemon or its user left is removed first. Raises `OSError`.
    """
    directory = doors_dir / sandbox_id
    remove_door(doors_dir, sandbox_id)
    directory.mkdir(parents=True, mode=0o700)
    descriptor = os.open(directory / SECRET_NAME, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secret)
        if uid is not None:
            os.fchown(file.fileno(), uid, gid)
    if uid is not None:
        os.chown(directory, uid, gid, follow_symlinks=False)
    return directory


def remove_door(doors_dir: Path, sandbox_id: str) -> None:
    """Remove a door directory without following anything user code may have put there; gone already is success."""
    directory = doors_dir / sandbox_id
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(directory.lstat().st_mode):
            shutil.rmtree(directory)
        else:
            directory.unlink()


async def wait_until_daemon_answers(door: Path, secret: str, *, timeout_seconds: float) -> None:
    """Return when the daemon behind `door` says that it is well. Raises `DaemonUnreachable`."""
    try:
        async with asyncio.timeout(timeout_seconds), _changes(door.parent) as changed:
            while not await is_well(door, secret):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RECHECK_SECONDS):
                        await changed.wait()
                changed.clear()
    except TimeoutError:
        raise DaemonUnreachable(
            f"timeout waiting for daemon to start: no answer within {timeout_seconds:.0f} s", recoverable=True
        ) from None


async def is_well(door: Path, secret: str) -> bool:
    """Whether the daemon behind `door` answers its health check now."""
    try:
        connection = connect_door(door)
    except DoorError:
        return False
    request = f"GET /_daemon/health HTTP/1.1\r\nHost: door\r\n{DOOR_HEADER}: {secret}\r\nConnection: close\r\n\r\n"
    with connection:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
                await loop.sock_sendall(connection, request.encode("latin-1"))
                answer = await loop.sock_recv(connection, 4096)
                return answer.startswith(b"HTTP/1.1 200")
    return False


@asynccontextmanager
async def _changes(directory: Path) -> AsyncIterator[asyncio.Event]:
    """An event that is set whenever something appears in `directory`. *Source:* inotify(7)."""
    changed = asyncio.Event()
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0:
        yield changed
        return
    loop = asyncio.get_running_loop()

    def notice() -> None:
        os.read(descriptor, 4096)
        changed.set()

    try:
        # The attribute change tells that the daemon has set the mode of its socket, the last thing before listening.
        libc.inotify_add_watch(descriptor, os.fsencode(directory), _IN_CREATE | _IN_MOVED_TO | _IN_ATTRIB)
        loop.add_reader(descriptor, notice)
        yield changed
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def open_door(door: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Streams to the daemon behind `door`. Raises `DaemonUnreachable`."""
    try:
        connection: socket.socket = connect_door(door)
    except DoorError as error:
        raise DaemonUnreachable(f"the daemon's door cannot be opened: {error}", recoverable=True) from error
    return await asyncio.open_connection(sock=connection, limit=1 << 20)
