"""Listing directories, and finding names and text in them. Links are named, never followed into."""

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from json.encoder import encode_basestring

from sandyard_daemon.errors import BadRequest
from sandyard_daemon.files.entries import described, look
from sandyard_daemon.files.paths import shown
from sandyard_daemon.files.text import Line, Pattern, lines_with
from sandyard_daemon.files.workers import Steps

MAX_MATCHES = 50_000
MAX_ANSWER = 16 << 20
"""Bytes of JSON that `find` collects before it says that there was more."""

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY

Visit = tuple[str, "os.DirEntry[str]"]


@dataclass(slots=True)
class Found:
    """Where the text is, as a JSON array."""

    pieces: list[bytes] = field(default_factory=list)
    size: int = 0
    is_truncated: bool = False

    @property
    def json(self) -> bytes:
        """All of them."""
        return b"[" + b",".join(self.pieces) + b"]"

    def add(self, path: str, line: Line) -> None:
        """Keep one more, or note that there was one."""
        if len(self.pieces) >= MAX_MATCHES or self.size >= MAX_ANSWER:
            self.is_truncated = True
            return
        content = line.content.decode("utf-8", "replace")
        text = (
            f'{{"file":{encode_basestring(shown(path))},"line":{line.number},"content":{encode_basestring(content)}}}'
        )
        self.pieces.append(text.encode())
        self.size += len(self.pieces[-1])


def listing(root: str, depth: int, *, is_brief: bool = False) -> Steps[None]:
    """A JSON array of what is in a directory, `depth` levels deep, each by name. Raises `OSError` for `root`."""
    separator = b"["
    for path, entry in _walk(root, depth):
        try:
            status = entry.stat() if not entry.is_symlink() else look(entry.path)
        except OSError:  # it went away just now
            continue
        yield separator + described(path, entry.name, status, is_brief=is_brief)
        separator = b","
    yield b"]" if separator == b"," else b"[]"


def names_like(root: str, asked: str, pattern: re.Pattern[str]) -> Steps[None]:
    """`{"files": [...]}`, every path below `asked` whose last part matches, `asked` itself too. Raises `OSError`.

    The paths begin with `asked`, which is `root` as the client wrote it.
    """
    separator = b'{"files":['
    is_directory = stat.S_ISDIR(os.stat(root).st_mode)
    if pattern.fullmatch(os.path.basename(os.path.abspath(root))):
        yield separator + encode_basestring(shown(asked)).encode()
        separator = b","
    prefix = _prefix(asked)
    if is_directory:
        start = len(_prefix(root))
        for path, entry in _walk(root):
            if pattern.fullmatch(entry.name):
                yield separator + encode_basestring(shown(prefix + path[start:])).encode()
                separator = b","
            else:
                yield None
    yield b"]}" if separator == b"," else b'{"files":[]}'


def text_in(root: str, asked: str, pattern: bytes) -> Steps[Found]:
    """Every line below `root` that holds the text; `root` may be a file. Raises `OSError` for `root`."""
    found = Found()
    wanted = Pattern(pattern)
    for path, descriptor in _readable(root, asked):
        if descriptor is not None:
            for line in _lines(descriptor, wanted):
                if line is not None:
                    found.add(path, line)
                if found.is_truncated:
                    return found
                yield None
        yield None
    return found


def _readable(root: str, asked: str) -> Iterator[tuple[str, int | None]]:
    """Every regular file, open; between them `None` now and then. A root that is a file may be a link to it."""
    status = os.stat(root)
    if not stat.S_ISDIR(status.st_mode):
        if not stat.S_ISREG(status.st_mode):
            raise BadRequest(f"neither a regular file nor a directory: {shown(asked)}")
        yield asked, os.open(root, _READ)
        return
    prefix, start = _prefix(asked), len(_prefix(root))
    for path, entry in _walk(root):
        descriptor = None
        with contextlib.suppress(OSError):  # unreadable, or gone just now: the others still count
            if entry.is_file(follow_symlinks=False):
                descriptor = os.open(path, _READ | os.O_NOFOLLOW)
        yield prefix + path[start:], descriptor


def _lines(descriptor: int, pattern: Pattern) -> Iterator[Line | None]:
    with contextlib.suppress(OSError):
        yield from lines_with(descriptor, pattern)


def glob(pattern: str) -> re.Pattern[str]:
    r"""A shell pattern (`*`, `?`, `[a-z]`, `[^a]`, `\`) as a regular expression that cannot backtrack for long.

    Raises `BadRequest` for one that is not finished.
    """
    parts: list[list[str]] = [[]]
    at = 0
    while at < len(pattern):
        letter = pattern[at]
        at += 1
        if letter == "*":
            parts.append([])
        elif letter == "?":
            parts[-1].append("[^/]")
        elif letter == "[":
            text, at = _character_class(pattern, at)
            parts[-1].append(text)
        elif letter == "\\":
            if at == len(pattern):
                raise BadRequest("pattern ends in a backslash")
            parts[-1].append(re.escape(pattern[at]))
            at += 1
        else:
            parts[-1].append(re.escape(letter))
    first, *rest = ("".join(part) for part in parts)
    if not rest:
        return re.compile(first, re.DOTALL)
    # The shortest way to each fixed part but the last is as good as any; atomic, it is the only one that is tried.
    middle = "".join(f"(?>.*?{part})" for part in rest[:-1])
    return re.compile(f"{first}{middle}.*{rest[-1]}", re.DOTALL)


def _character_class(pattern: str, at: int) -> tuple[str, int]:
    negated = pattern[at : at + 1] in ("^", "!")
    at += negated
    ranges: list[str] = []
    while pattern[at : at + 1] != "]" or not ranges:
        low, at = _class_letter(pattern, at)
        high = low
        if pattern[at : at + 1] == "-" and pattern[at + 1 : at + 2] not in ("", "]"):
            high, at = _class_letter(pattern, at + 1)
        if high < low:
            raise BadRequest("pattern has a range that ends before it begins")
        ranges.append(f"{re.escape(low)}-{re.escape(high)}")
    return f"[{'^' if negated else ''}{''.join(ranges)}]", at + 1


def _class_letter(pattern: str, at: int) -> tuple[str, int]:
    at += pattern[at : at + 1] == "\\"
    if at >= len(pattern):
        raise BadRequest("pattern has a [ without its ]")
    return pattern[at], at + 1


def _walk(root: str, depth: int | None = None) -> Iterator[Visit]:
    """Path and entry of everything below `root`, each directory by name and before what is in it.

    Raises `OSError` for `root`; a directory below it that cannot be read has nothing in it.
    """
    levels = [_sorted_entries(root)]
    while levels:
        entry = next(levels[-1], None)
        if entry is None:
            levels.pop()
            continue
        yield entry.path, entry
        if (depth is None or len(levels) < depth) and _is_directory(entry):
            try:
                levels.append(_sorted_entries(entry.path))
            except OSError:
                continue


def _sorted_entries(directory: str) -> Iterator["os.DirEntry[str]"]:
    with os.scandir(directory) as entries:
        return iter(sorted(entries, key=lambda entry: entry.name))


def _is_directory(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _prefix(directory: str) -> str:
    """What stands before the names in it, as `os.scandir` joins them."""
    return directory if directory.endswith("/") else directory + "/"
