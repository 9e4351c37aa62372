"""What `/_daemon/fs` does with files: one method an operation, blocking, called in a thread."""

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from typing import Any

MAX_READ = 256 << 10
"""Bytes of one `read`."""
MAX_HANDLES = 256
"""Of one client."""
MAX_ENTRIES = 256
"""Names in one answer of `readdir`."""

Answer = tuple[dict[str, Any], bytes]

_ACCESS = {"r": os.O_RDONLY, "w": os.O_WRONLY, "rw": os.O_RDWR}
_OPTIONS = {"create": os.O_CREAT, "truncate": os.O_TRUNC, "exclusive": os.O_EXCL, "append": os.O_APPEND}


class Wrong(Exception):
    """A request whose fields make no sense."""


class Files:
    """The open files and directories of one client. Paths may be relative to `home`. All methods raise `OSError`."""

    def __init__(self, home: str) -> None:
        self._home = home
        self._files: dict[int, int] = {}
        self._listings: dict[int, os._ScandirIterator[str]] = {}
        self._last = 0
        self.operations: dict[str, Callable[[dict[str, Any], bytes], Answer]] = {
            "open": self._open,
            "close": self._close,
            "read": self._read,
            "write": self._write,
            "fsync": self._fsync,
            "opendir": self._opendir,
            "readdir": self._readdir,
            "stat": lambda head, _: (_attributes(os.stat(self._path(head))), b""),
            "lstat": lambda head, _: (_attributes(os.lstat(self._path(head))), b""),
            "fstat": lambda head, _: (_attributes(os.fstat(self._file(head))), b""),
            "setstat": self._setstat,
            "fsetstat": self._fsetstat,
            "statvfs": lambda head, _: (_space(os.statvfs(self._path(head))), b""),
            "realpath": lambda head, _: ({"path": os.path.realpath(self._path(head))}, b""),
            "readlink": lambda head, _: ({"path": os.readlink(self._path(head))}, b""),
            "mkdir": lambda head, _: _do(os.mkdir, self._path(head), _number(head, "mode", 0o777)),
            "rmdir": lambda head, _: _do(os.rmdir, self._path(head)),
            "remove": lambda head, _: _do(os.unlink, self._path(head)),
            "rename": self._rename,
            "link": lambda head, _: _do(os.link, self._path(head), self._path(head, "to"), follow_symlinks=False),
            "symlink": lambda head, _: _do(os.symlink, _text(head, "target"), self._path(head)),
        }

    def close(self) -> None:
        """Close what the client left open."""
        for descriptor in self._files.values():
            os.close(descriptor)
        for listing in self._listings.values():
            listing.close()
        self._files, self._listings = {}, {}

    def _path(self, head: dict[str, Any], name: str = "path") -> str:
        return os.path.join(self._home, _text(head, name))

    def _handle(self) -> int:
        if len(self._files) + len(self._listings) >= MAX_HANDLES:
            raise OSError(errno.EMFILE, "too many open files")
        self._last += 1
        return self._last

    def _file(self, head: dict[str, Any]) -> int:
        descriptor = self._files.get(_number(head, "handle"))
        if descriptor is None:
            raise OSError(errno.EBADF, "no such open file")
        return descriptor

    def _open(self, head: dict[str, Any], payload: bytes) -> Answer:
        # Not blocking: opening a pipe that nobody writes to would hold up this client for ever.
        flags = _ACCESS.get(head.get("access", "r"))
        if flags is None:
            raise Wrong("access is r, w or rw")
        for name, option in _OPTIONS.items():
            flags |= option if head.get(name) is True else 0
        handle = self._handle()
        descriptor = os.open(self._path(head), flags | os.O_NONBLOCK | os.O_CLOEXEC, _number(head, "mode", 0o666))
        try:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        except OSError:
            os.close(descriptor)
            raise
        self._files[handle] = descriptor
        return {"handle": handle}, b""

    def _close(self, head: dict[str, Any], payload: bytes) -> Answer:
        handle = _number(head, "handle")
        if (listing := self._listings.pop(handle, None)) is not None:
            listing.close()
        elif (descriptor := self._files.pop(handle, None)) is not None:
            os.close(descriptor)
        else:
            raise OSError(errno.EBADF, "no such open file")
        return {}, b""

    def _read(self, head: dict[str, Any], payload: bytes) -> Answer:
        size = min(_number(head, "size"), MAX_READ)
        return {}, os.pread(self._file(head), size, _number(head, "offset"))

    def _write(self, head: dict[str, Any], payload: bytes) -> Answer:
        descriptor, offset, left = self._file(head), _number(head, "offset"), memoryview(payload)
        while left:
            count = os.pwrite(descriptor, left, offset)
            offset, left = offset + count, left[count:]
        return {}, b""

    def _fsync(self, head: dict[str, Any], payload: bytes) -> Answer:
        return _do(os.fsync, self._file(head))

    def _opendir(self, head: dict[str, Any], payload: bytes) -> Answer:
        handle = self._handle()
        self._listings[handle] = os.scandir(self._path(head))
        return {"handle": handle}, b""

    def _readdir(self, head: dict[str, Any], payload: bytes) -> Answer:
        """The next entries; an empty list at the end."""
        listing = self._listings.get(_number(head, "handle"))
        if listing is None:
            raise OSError(errno.EBADF, "no such open directory")
        entries: list[dict[str, Any]] = []
        for entry in listing:
            with contextlib.suppress(FileNotFoundError):  # it went meanwhile
                entries.append({"name": entry.name, **_attributes(entry.stat(follow_symlinks=False))})
            if len(entries) >= MAX_ENTRIES:
                break
        return {"entries": entries}, b""

    def _rename(self, head: dict[str, Any], payload: bytes) -> Answer:
        source, target = self._path(head), self._path(head, "to")
        if head.get("replace") is True:
            return _do(os.rename, source, target)
        if stat.S_ISDIR(os.lstat(source).st_mode):
            if os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            return _do(os.rename, source, target)
        os.link(source, target, follow_symlinks=False)  # unlike a rename it never replaces
        return _do(os.unlink, source)

    def _setstat(self, head: dict[str, Any], payload: bytes) -> Answer:
        follow = head.get("follow") is not False
        path = self._path(head)
        if (size := head.get("size")) is not None:
            os.truncate(path, _number({"size": size}, "size"))
        _change(path, head, follow=follow)
        return {}, b""

    def _fsetstat(self, head: dict[str, Any], payload: bytes) -> Answer:
        descriptor = self._file(head)
        if (size := head.get("size")) is not None:
            os.ftruncate(descriptor, _number({"size": size}, "size"))
        _change(descriptor, head, follow=True)
        return {}, b""


def _change(path: str | int, head: dict[str, Any], *, follow: bool) -> None:
    """Owner, mode and times, those that are there. Times come last: the others change them."""
    options: dict[str, Any] = {} if follow else {"follow_symlinks": False}
    if head.get("uid") is not None or head.get("gid") is not None:
        os.chown(path, _number(head, "uid", -1), _number(head, "gid", -1), **options)
    if head.get("mode") is not None:
        os.chmod(path, stat.S_IMODE(_number(head, "mode")), **options)
    if head.get("mtime_ns") is not None:
        mtime = _number(head, "mtime_ns")
        os.utime(path, ns=(_number(head, "atime_ns", mtime), mtime), **options)


def _attributes(found: os.stat_result) -> dict[str, Any]:
    return {
        "mode": found.st_mode,
        "size": found.st_size,
        "uid": found.st_uid,
        "gid": found.st_gid,
        "nlink": found.st_nlink,
        "atime_ns": found.st_atime_ns,
        "mtime_ns": found.st_mtime_ns,
        "ctime_ns": found.st_ctime_ns,
    }


def _space(found: os.statvfs_result) -> dict[str, Any]:
    names = "bsize frsize blocks bfree bavail files ffree favail flag namemax"
    return {name: getattr(found, f"f_{name}") for name in names.split()}


def _do(change: Callable[..., None], *arguments: Any, **options: Any) -> Answer:
    change(*arguments, **options)
    return {}, b""


def _text(head: dict[str, Any], name: str) -> str:
    value = head.get(name)
    if not isinstance(value, str) or "\0" in value:
        raise Wrong(f"{name} must be a string without NUL characters")
    return value


def _number(head: dict[str, Any], name: str, default: int | None = None) -> int:
    value = head.get(name)
    if value is None and default is not None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise Wrong(f"{name} must be a whole number, not negative")
    return value
