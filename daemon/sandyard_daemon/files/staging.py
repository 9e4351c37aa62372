"""A file that is being written: beside its target until it is whole, then in its place in one step."""

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Sequence

from sandyard_daemon.errors import BadRequest
from sandyard_daemon.files.paths import shown

PREFIX = ".sandyard-upload-"
NEW_MODE = 0o666
"""Less the umask."""
_CLOSED_DIRECTORY = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_NOT_RENAMED = frozenset({errno.EBUSY, errno.EPERM, errno.EACCES, errno.EXDEV})
"""A mount point such as `/etc/hosts`, or a sticky directory with somebody else's file: it can only be written to."""
_PIECE = 8 << 20
OVER = "the upload is over"


class Staged:
    """One new content of `path`. Blocks; every method may be called from any thread.

    Links are resolved, dangling ones too, and the file they lead to is replaced. Mode and owner of an existing file
    stay. Where no file can be made beside it, the new content waits elsewhere and is copied over the old one.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._target = path
        self._lock = threading.Lock()
        self._old: os.stat_result | None = None
        self._descriptor: int | None = None
        self._temporary: str | None = None
        self._made: list[str] = []
        self._is_over = False
        self.size = 0
        """Bytes written so far."""

    def open(self) -> None:
        """Begin; makes missing parents. Raises `OSError`, `BadRequest`."""
        with self._lock:
            if self._is_over:
                raise OSError(errno.EBADF, OVER)
            self._target, self._old = _target_of(self._path)
            if self._old is not None and not os.access(self._target, os.W_OK, effective_ids=True):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), self._path)
            directory = os.path.dirname(self._target)
            self._make_directories(directory)
            mode = NEW_MODE if self._old is None else stat.S_IMODE(self._old.st_mode) & 0o600
            try:
                self._create(directory, mode)
            except OSError as error:
                if self._old is None or error.errno not in _CLOSED_DIRECTORY:
                    raise
                self._create(os.environ.get("TMPDIR", "/tmp"), 0o600)  # noqa: S108  exclusive, and without a name at once
                self._unname()

    def write(self, pieces: Sequence[bytes]) -> None:
        """Append. Raises `OSError`."""
        with self._lock:
            for piece in pieces:
                left = memoryview(piece)
                while left:
                    left = left[os.write(self._open_descriptor(), left) :]
                self.size += len(piece)

    def commit(self) -> None:
        """Take the target's place. Raises `OSError`; `discard` is still to be called then."""
        with self._lock:
            descriptor = self._open_descriptor()
            if self._temporary is None:
                self._copy_over()
            else:
                self._keep_owner_and_mode(descriptor)
                try:
                    os.rename(self._temporary, self._target)
                    self._temporary = None
                except OSError as error:
                    if self._old is None or error.errno not in _NOT_RENAMED:
                        raise
                    self._unname()
                    self._copy_over()
            self._descriptor = None
            self._made = []
            os.close(descriptor)

    def discard(self) -> None:
        """Leave nothing behind of what was not committed; whoever opens it later is refused. May be repeated."""
        with self._lock:
            self._is_over = True
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None
            with contextlib.suppress(OSError):
                self._unname()
            for directory in reversed(self._made):
                with contextlib.suppress(OSError):  # somebody put something there meanwhile
                    os.rmdir(directory)
            self._made = []

    def _open_descriptor(self) -> int:
        if self._descriptor is None:
            raise OSError(errno.EBADF, OVER)
        return self._descriptor

    def _make_directories(self, directory: str) -> None:
        missing = []
        while not os.path.lexists(directory):
            missing.append(directory)
            directory = os.path.dirname(directory)
        for path in reversed(missing):
            with contextlib.suppress(FileExistsError):  # another upload was quicker
                os.mkdir(path, 0o755)
                self._made.append(path)

    def _create(self, directory: str, mode: int) -> None:
        temporary = os.path.join(directory, PREFIX + os.urandom(8).hex())
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(temporary, flags, mode)
        self._temporary = temporary

    def _unname(self) -> None:
        if self._temporary is not None:
            temporary, self._temporary = self._temporary, None
            os.unlink(temporary)

    def _keep_owner_and_mode(self, descriptor: int) -> None:
        if self._old is None:
            return
        made = os.fstat(descriptor)
        if (made.st_uid, made.st_gid) != (self._old.st_uid, self._old.st_gid):
            with contextlib.suppress(OSError):  # only root may give a file away; then it becomes the writer's
                os.fchown(descriptor, self._old.st_uid, self._old.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(self._old.st_mode))

    def _copy_over(self) -> None:
        source = self._open_descriptor()
        target = os.open(self._target, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            copy_bytes(source, target, self.size)
        finally:
            os.close(target)


def copy_bytes(source: int, target: int, count: int) -> None:
    """Between two regular files, from the start of `source`, by the kernel. Raises `OSError`."""
    offset = 0
    while offset < count:
        sent = os.sendfile(target, source, offset, min(count - offset, _PIECE))
        if not sent:
            raise OSError(errno.EIO, "the file became shorter while it was copied")
        offset += sent


def _target_of(path: str) -> tuple[str, os.stat_result | None]:
    """The file that is to be replaced, links resolved, and its status if it is there. Raises `OSError`."""
    target = os.path.realpath(path)
    try:
        status = os.lstat(target)
    except FileNotFoundError:
        status = None
    if path.endswith("/") or (status is not None and stat.S_ISDIR(status.st_mode)):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if status is not None and stat.S_ISLNK(status.st_mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    if status is not None and not stat.S_ISREG(status.st_mode):
        raise BadRequest(f"not a regular file: {shown(path)}")
    return target, status
