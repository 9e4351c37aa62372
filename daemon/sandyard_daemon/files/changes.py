"""Making folders, deleting, and setting who may: what changes the tree but no file's bytes."""

import contextlib
import errno
import grp
import os
import pwd
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from sandyard_daemon.errors import BadRequest
from sandyard_daemon.files.paths import shown
from sandyard_daemon.files.workers import Steps

_OCTAL = re.compile(r"0?[0-7]{1,4}", re.ASCII)
_SPECIAL = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX
_MAX_ID = (1 << 32) - 2
FOLDER_MODE = 0o755
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def octal(text: str) -> int:
    """A mode such as `755` or `01777`. Raises `BadRequest`."""
    if _OCTAL.fullmatch(text) is None:
        raise BadRequest(f"mode must be octal digits such as 0755, not {shown(text)!r}")
    return int(text, 8)


def make_folder(path: str, mode: int) -> None:
    """With its parents, less the umask, or none of them; one that exists stays as it is. Raises `OSError`."""
    missing: list[str] = []
    at = os.path.abspath(path)
    while not os.path.lexists(at):
        missing.append(at)
        at = os.path.dirname(at)
    if not os.path.isdir(at):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    made: list[str] = []
    try:
        for directory in reversed(missing):
            # A parent that its maker may not enter would be no use.
            wanted = mode if directory is missing[0] else mode | stat.S_IWUSR | stat.S_IXUSR
            if _make(directory, wanted):
                made.append(directory)
    except OSError:
        for directory in reversed(made):
            with contextlib.suppress(OSError):  # somebody put something there meanwhile
                os.rmdir(directory)
        raise


def _make(directory: str, mode: int) -> bool:
    """Whether it was this call that made it, and not somebody else's, meanwhile."""
    try:
        os.mkdir(directory, mode & 0o777)
    except FileExistsError:
        if not os.path.isdir(directory):
            raise
        return False
    if mode & _SPECIAL:
        os.chmod(directory, stat.S_IMODE(os.stat(directory).st_mode) | (mode & _SPECIAL))
    return True


def delete(path: str, *, recursive: bool) -> Steps[None]:
    """Remove a file, a link itself, or a directory with all that is in it. Raises `OSError`, `BadRequest`.

    What cannot be removed is left, and the first such is raised at the end.
    """
    if not stat.S_ISDIR(os.lstat(path.rstrip("/") or "/").st_mode):
        os.unlink(path)
        return
    if not recursive:
        raise BadRequest(f"a directory is deleted with recursive=true only: {shown(path)}")
    if os.path.samefile(path, "/"):
        raise BadRequest("the root directory cannot be deleted")
    emptying = _Emptying(path.rstrip("/"))
    yield from emptying.steps()
    if emptying.failure is None:
        emptying.attempt(os.rmdir, path.rstrip("/"))
    if emptying.failure is not None:
        raise emptying.failure


class _Level(NamedTuple):
    """A directory on the way down, and what is left in it."""

    name: str
    entries: Iterator["os.DirEntry[str]"]
    identity: tuple[int, int]


class _Emptying:
    """Empties a directory of any depth; goes on after what cannot be removed, and remembers the first of it.

    By descriptors: a path may be too long to be said, and a directory that becomes a link is not followed. One is open
    at a time; the way up is `..`, if that is still where we came from.
    """

    def __init__(self, root: str) -> None:
        self.failure: OSError | None = None
        self._root = root
        self._levels: list[_Level] = []

    def attempt(self, remove: Callable[..., None], name: str, directory: int | None = None) -> None:
        try:
            remove(name, dir_fd=directory)
        except FileNotFoundError:  # somebody else removed it
            return
        except OSError as error:
            self._note(error, name)

    def steps(self) -> Steps[None]:
        at = os.open(self._root, _DIRECTORY)
        try:
            self._enter("", at)
            while entry := self._next():
                yield None
                if isinstance(entry, _Level):
                    at = self._up(at)
                    self.attempt(os.rmdir, entry.name, at)
                elif entry.is_dir(follow_symlinks=False):
                    at = self._down(entry.name, at)
                else:
                    self.attempt(os.unlink, entry.name, at)
        finally:
            os.close(at)

    def _next(self) -> "os.DirEntry[str] | _Level | None":
        """The next entry here; the level itself when there is none; `None` when the root is done."""
        entry = next(self._levels[-1].entries, None)
        if entry is not None:
            return entry
        done = self._levels.pop()
        return done if self._levels else None

    def _down(self, name: str, at: int) -> int:
        try:
            inner = os.open(name, _DIRECTORY, dir_fd=at)
        except OSError as error:
            self._note(error, name)
            return at
        os.close(at)
        self._enter(name, inner)
        return inner

    def _up(self, at: int) -> int:
        outer = os.open("..", _DIRECTORY, dir_fd=at)
        status = os.fstat(outer)
        if (status.st_dev, status.st_ino) != self._levels[-1].identity:
            os.close(outer)
            raise OSError(errno.EBUSY, "the directory was moved while it was deleted", self._root)
        os.close(at)
        return outer

    def _enter(self, name: str, at: int) -> None:
        entries: list[os.DirEntry[str]] = []
        try:
            with os.scandir(at) as found:
                entries = list(found)
        except OSError as error:
            self._note(error, name)
        status = os.fstat(at)
        self._levels.append(_Level(name, iter(entries), (status.st_dev, status.st_ino)))

    def _note(self, error: OSError, name: str) -> None:
        if self.failure is None:
            way = [level.name for level in self._levels[1:]]
            self.failure = OSError(error.errno, os.strerror(error.errno or 0), "/".join([self._root, *way, name]))


@dataclass(frozen=True, slots=True)
class Ownership:
    """What is to be set; `None` stays."""

    mode: int | None
    owner: int | None
    group: int | None

    @classmethod
    def read(cls, mode: str, owner: str, group: str) -> "Ownership":
        """From names or numbers; empty stays. Raises `BadRequest` before anything is changed."""
        return cls(
            octal(mode) if mode else None,
            _number(owner, "owner", lambda name: pwd.getpwnam(name).pw_uid) if owner else None,
            _number(group, "group", lambda name: grp.getgrnam(name).gr_gid) if group else None,
        )

    def apply(self, path: str) -> None:
        """Owner first, since a change of owner takes special bits away; nothing stays changed when it fails.

        Follows links. Raises `OSError`.
        """
        before = os.stat(path)
        owner = -1 if self.owner is None else self.owner
        group = -1 if self.group is None else self.group
        changes_owner = owner not in (-1, before.st_uid) or group not in (-1, before.st_gid)
        if self.mode is not None and os.geteuid() not in (0, before.st_uid):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)
        if changes_owner:
            os.chown(path, owner, group)
        if self.mode is None:
            return
        try:
            os.chmod(path, self.mode)
        except OSError:
            if changes_owner:
                os.chown(path, before.st_uid, before.st_gid)
            raise


def _number(text: str, kind: str, look_up: Callable[[str], int]) -> int:
    if text.isascii() and text.isdigit():
        number = int(text[:12])
        if number > _MAX_ID:
            raise BadRequest(f"{kind} {text} is no number that a system uses")
        return number
    try:
        return look_up(text)
    except (KeyError, ValueError, UnicodeError):
        raise BadRequest(f"there is no {kind} {shown(text)!r} in this sandbox") from None
