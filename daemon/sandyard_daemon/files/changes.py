"""Making folders, deleting, and setting who may: what changes the tree but no file's bytes."""

import errno
import grp
import os
import pwd
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sandyard_daemon.errors import BadRequest
from sandyard_daemon.files.paths import shown
from sandyard_daemon.files.workers import Steps

_OCTAL = re.compile(r"0?[0-7]{1,4}", re.ASCII)
_SPECIAL = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX
_MAX_ID = (1 << 32) - 2
FOLDER_MODE = 0o755


def octal(text: str) -> int:
    """A mode such as `755` or `01777`. Raises `BadRequest`."""
    if _OCTAL.fullmatch(text) is None:
        raise BadRequest(f"mode must be octal digits such as 0755, not {shown(text)!r}")
    return int(text, 8)


def make_folder(path: str, mode: int) -> None:
    """With its parents, less the umask; one that exists stays as it is. Raises `OSError`."""
    missing: list[str] = []
    at = os.path.abspath(path)
    while not os.path.lexists(at):
        missing.append(at)
        at = os.path.dirname(at)
    if not os.path.isdir(at):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    for directory in reversed(missing):
        # A parent that its maker may not enter would be no use.
        wanted = mode if directory is missing[0] else mode | stat.S_IWUSR | stat.S_IXUSR
        try:
            os.mkdir(directory, wanted & 0o777)
        except FileExistsError:  # somebody else was quicker
            if not os.path.isdir(directory):
                raise
            continue
        if wanted & _SPECIAL:
            os.chmod(directory, stat.S_IMODE(os.stat(directory).st_mode) | (wanted & _SPECIAL))


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
    emptying = _Emptying()
    yield from emptying.empty(path)
    emptying.attempt(os.rmdir, path.rstrip("/"))
    if emptying.failure is not None:
        raise emptying.failure


class _Emptying:
    """Goes on after what cannot be removed, and remembers the first of it."""

    def __init__(self) -> None:
        self.failure: OSError | None = None

    def attempt(self, remove: Callable[[str], None], path: str) -> None:
        try:
            remove(path)
        except FileNotFoundError:  # somebody else removed it
            return
        except OSError as error:
            self.failure = self.failure or error

    def empty(self, root: str) -> Steps[None]:
        """Depth first, by a stack of our own: a tree may be deeper than Python calls. Links are not followed."""
        levels = [(root, self._entries(root))]
        while levels:
            path, entries = levels[-1]
            entry = next(entries, None)
            yield None
            if entry is None:
                levels.pop()
                if levels:
                    self.attempt(os.rmdir, path)
            elif entry.is_dir(follow_symlinks=False):
                levels.append((entry.path, self._entries(entry.path)))
            else:
                self.attempt(os.unlink, entry.path)

    def _entries(self, directory: str) -> Iterator["os.DirEntry[str]"]:
        try:
            with os.scandir(directory) as entries:
                return iter(list(entries))
        except OSError as error:
            self.failure = self.failure or error
            return iter(())


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
