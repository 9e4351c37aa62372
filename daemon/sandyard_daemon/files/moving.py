"""Moving: by rename, and by a whole copy with all that belongs to it where the file system is another one."""

import contextlib
import errno
import os
import stat

from sandyard_daemon.errors import Conflict
from sandyard_daemon.files.changes import delete
from sandyard_daemon.files.paths import shown
from sandyard_daemon.files.staging import PREFIX
from sandyard_daemon.files.workers import Steps
from sandyard_daemon.linux import rename_to_nothing

_PIECE = 8 << 20
_NOT_COPIED = frozenset({errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.EINVAL})
"""Attributes and owners that the other file system or our user cannot have; the bytes are what must arrive."""


def move(source: str, destination: str) -> Steps[None]:
    """Rename, never onto nor into what exists. Raises `OSError`, `Conflict`."""
    source, destination = source.rstrip("/") or "/", destination.rstrip("/") or "/"
    os.lstat(source)
    os.stat(os.path.dirname(destination) or ".")
    try:
        rename_to_nothing(source, destination)
    except FileExistsError:
        raise Conflict(f"the destination exists: {shown(destination)}") from None
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        yield from _move_by_copy(source, destination)


def _move_by_copy(source: str, destination: str) -> Steps[None]:
    """Complete under another name first, so that half a tree is never seen under the wanted one."""
    if not os.access(os.path.dirname(os.path.abspath(source)), os.W_OK | os.X_OK, effective_ids=True):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), source)
    if _is_within(destination, source):
        raise OSError(errno.EINVAL, "a directory cannot be moved into itself", source)
    temporary = os.path.join(os.path.dirname(destination), PREFIX + os.urandom(8).hex())
    try:
        yield from _copy(source, temporary)
        try:
            rename_to_nothing(temporary, destination)
        except FileExistsError:
            raise Conflict(f"the destination exists: {shown(destination)}") from None
    except BaseException:
        with contextlib.suppress(OSError):
            for _ in delete(temporary, recursive=True):
                pass
        raise
    yield from delete(source, recursive=True)


def _copy(source: str, target: str) -> Steps[None]:
    """A directory's own mode and times come last: what is copied into it would change them, or not be let in."""
    pending = [(source, target, False)]
    while pending:
        old, new, is_filled = pending.pop()
        status = os.lstat(old)
        if is_filled:
            _copy_attributes(old, new, status)
        elif stat.S_ISDIR(status.st_mode):
            os.mkdir(new, 0o700)
            pending.append((old, new, True))
            with os.scandir(old) as entries:
                pending += [(entry.path, os.path.join(new, entry.name), False) for entry in entries]
        else:
            yield from _copy_one(old, new, status)
            _copy_attributes(old, new, status)
        yield None


def _copy_one(old: str, new: str, status: os.stat_result) -> Steps[None]:
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(old), new)
    elif not stat.S_ISREG(status.st_mode):
        os.mknod(new, stat.S_IFMT(status.st_mode) | 0o600, status.st_rdev)
    else:
        source = os.open(old, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            target = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                while os.sendfile(target, source, None, _PIECE):
                    yield None
            finally:
                os.close(target)
        finally:
            os.close(source)


def _copy_attributes(old: str, new: str, status: os.stat_result) -> None:
    try:
        os.chown(new, status.st_uid, status.st_gid, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NOT_COPIED:
            raise
    for name in _attributes(old):
        try:
            os.setxattr(new, name, os.getxattr(old, name, follow_symlinks=False), follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NOT_COPIED:
                raise
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(new, stat.S_IMODE(status.st_mode))
    os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


def _attributes(path: str) -> list[str]:
    try:
        return os.listxattr(path, follow_symlinks=False)
    except OSError:
        return []


def _is_within(path: str, directory: str) -> bool:
    return (os.path.realpath(path) + "/").startswith(os.path.realpath(directory) + "/")
