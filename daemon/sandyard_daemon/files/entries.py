"""What is told of one file, directory or link."""

import os
import stat
import time
from functools import lru_cache
from json.encoder import encode_basestring

from sandyard_daemon.files.paths import shown

_LETTERS = (
    (stat.S_ISUID, "u"),
    (stat.S_ISGID, "g"),
)
_KINDS = {
    stat.S_IFDIR: "d",
    stat.S_IFLNK: "L",
    stat.S_IFBLK: "D",
    stat.S_IFCHR: "D",
    stat.S_IFIFO: "p",
    stat.S_IFSOCK: "S",
}


def described(path: str, name: str, status: os.stat_result, *, is_brief: bool = False) -> bytes:
    """The JSON object of one entry. `path` is its full path. By hand: a directory may hold many thousands.

    `is_brief` leaves out what old strict clients do not know, and writes the time in the only form that they parse.
    """
    mode, permissions = _mode_texts(status.st_mode)
    seconds, nanoseconds = divmod(status.st_mtime_ns, 1_000_000_000)
    date, clock = _time_texts(seconds)
    if is_brief:
        return (
            f'{{"name":{encode_basestring(shown(name))},"size":{status.st_size},'
            f'"mode":"{mode}","permissions":"{permissions}",'
            f'"owner":"{status.st_uid}","group":"{status.st_gid}",'
            f'"modTime":"{date}T{clock}{_fraction(nanoseconds)}Z",'
            f'"isDir":{"true" if stat.S_ISDIR(status.st_mode) else "false"}}}'
        ).encode()
    return (
        f'{{"name":{encode_basestring(shown(name))},"size":{status.st_size},'
        f'"mode":"{mode}","permissions":"{permissions}",'
        f'"owner":"{status.st_uid}","group":"{status.st_gid}",'
        f'"modTime":"{date} {clock}{_fraction(nanoseconds)} +0000 UTC",'
        f'"modifiedAt":"{date}T{clock}.{nanoseconds // 1000:06d}Z",'
        f'"isDir":{"true" if stat.S_ISDIR(status.st_mode) else "false"},'
        f'"path":{encode_basestring(shown(path))}}}'
    ).encode()


def look(path: str) -> os.stat_result:
    """The status of what a path leads to, or of the link itself where it leads nowhere. Raises `OSError`."""
    try:
        return os.stat(path)
    except OSError:
        status = os.lstat(path)
        if not stat.S_ISLNK(status.st_mode):
            raise
        return status


@lru_cache(64)
def _mode_texts(mode: int) -> tuple[str, str]:
    """As Go's `FileMode` writes it, and the octal of the permission bits."""
    kind = stat.S_IFMT(mode)
    prefix = _KINDS.get(kind, "") + "".join(letter for bit, letter in _LETTERS if mode & bit)
    prefix += ("c" if kind == stat.S_IFCHR else "") + ("t" if mode & stat.S_ISVTX else "")
    return (prefix or "-") + stat.filemode(mode & 0o777)[1:], f"{mode & 0o777:04o}"


@lru_cache(256)
def _time_texts(seconds: int) -> tuple[str, str]:
    """Date and time of day in UTC; a year that no calendar of ours has is the nearest one it has."""
    moment = time.gmtime(max(-62_135_596_800, min(seconds, 253_402_300_799)))
    return (
        f"{moment.tm_year:04d}-{moment.tm_mon:02d}-{moment.tm_mday:02d}",
        f"{moment.tm_hour:02d}:{moment.tm_min:02d}:{moment.tm_sec:02d}",
    )


def _fraction(nanoseconds: int) -> str:
    return f".{nanoseconds:09d}".rstrip("0") if nanoseconds else ""
