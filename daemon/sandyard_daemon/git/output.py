"""Git's machine-readable output as JSON, made while it is read: a status or a history of any length stays small."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from typing import Any, Protocol, TypeVar

from sandyard_daemon.git.errors import GitFailed, TookTooLong
from sandyard_daemon.git.failures import failure
from sandyard_daemon.git.process import Command, Finished, Git
from sandyard_daemon.http.messages import StreamResponse

Result = TypeVar("Result")

MAX_RECORD = 16 << 20
"""Bytes of one name or one commit message."""

HISTORY_FORMAT = "%H%x00%an%x00%ae%x00%aI%x00%B"
"""Five fields per commit; with `-z` each record ends in a NUL as well."""

_HISTORY_KEYS = ("hash", "author", "email", "timestamp", "message")
_WORDS = {
    ".": "Unmodified",
    "M": "Modified",
    "T": "Modified",
    "A": "Added",
    "D": "Deleted",
    "R": "Renamed",
    "C": "Copied",
    "U": "Updated but unmerged",
    "?": "Untracked",
}
# How many fields stand before the name, by the kind of entry. *Source:* git-status(1), Porcelain Format Version 2.
_FIELDS_BEFORE_NAME = {"1": 8, "2": 9, "u": 10, "?": 1}


class Records:
    """Splits output at one byte, across pieces."""

    def __init__(self, separator: bytes) -> None:
        self._separator = separator
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """The records that are complete now. What is not UTF-8 becomes U+FFFD. Raises `GitFailed`."""
        *whole, self._rest = (self._rest + data).split(self._separator)
        if len(self._rest) > MAX_RECORD:
            raise GitFailed(f"git gave a name or a message of more than {MAX_RECORD} bytes")
        return [record.decode("utf-8", "replace") for record in whole]


class Listing(Protocol):
    """JSON around a list whose entries come out of git's records."""

    separator: bytes

    def feed(self, record: str) -> Any | None:
        """The entry that this record completes."""

    def opening(self) -> bytes:
        """What stands before the first entry; asked when that came, or at the end."""

    def closing(self) -> bytes:
        """What stands behind the last entry."""


class StatusListing:
    """`git status --porcelain=v2 -z --branch`: first facts of the branch, then files."""

    separator = b"\0"

    def __init__(self, *, is_brief: bool) -> None:
        """`is_brief` leaves out what old strict clients do not know."""
        self._is_brief = is_brief
        self._branch: dict[str, str] = {}
        self._renamed: dict[str, str] | None = None

    def feed(self, record: str) -> dict[str, str] | None:
        """A file, where the record completes one."""
        if self._renamed is not None:
            file, self._renamed = self._renamed, None
            return {**file, "extra": record}
        if record.startswith("# "):
            key, _, value = record[2:].partition(" ")
            self._branch[key] = value
            return None
        if record.startswith("2 "):
            self._renamed = _file(record)
            return None
        return _file(record)

    def opening(self) -> bytes:
        """The branch."""
        name = self._branch.get("branch.head", "")
        is_detached = name == "(detached)"
        ahead, _, behind = self._branch.get("branch.ab", "+0 -0").partition(" ")
        upstream = self._branch.get("branch.upstream", "")
        facts: dict[str, Any] = {
            "currentBranch": "HEAD" if is_detached else name,
            "ahead": int(ahead),
            "behind": -int(behind),
            "branchPublished": bool(upstream),
        }
        if not self._is_brief:
            facts |= {"upstream": upstream, "detached": is_detached}
        return encoded(facts)[:-1] + b', "fileStatus": ['

    def closing(self) -> bytes:
        return b"]}"


class HistoryListing:
    """`git log -z` in `HISTORY_FORMAT`, field by field."""

    separator = b"\0"

    def __init__(self) -> None:
        self._fields: list[str] = []

    def feed(self, record: str) -> dict[str, str] | None:
        """A commit, with its last field."""
        self._fields.append(record)
        if len(self._fields) < len(_HISTORY_KEYS):
            return None
        commit = dict(zip(_HISTORY_KEYS, self._fields, strict=True))
        self._fields = []
        return commit

    def opening(self) -> bytes:
        return b"["

    def closing(self) -> bytes:
        return b"]"


class BranchListing:
    """One branch a line: no branch's name can hold a line's end."""

    separator = b"\n"

    def __init__(self, current: str | None) -> None:
        """`current` is told where it is not `None`."""
        self._current = current

    def feed(self, record: str) -> str:
        return record

    def opening(self) -> bytes:
        return b'{"branches": ['

    def closing(self) -> bytes:
        return b"]}" if self._current is None else b'], "current": %s}' % encoded(self._current)


async def streamed(git: Git, command: Command, listing: Listing) -> StreamResponse:
    """200 with the listing of a command's output. Raises what `failure` gives, where git fails before it said anything.

    Where it fails later the connection is cut: the status is out by then.
    """
    pieces = _pieces(git, command)
    try:
        first = await anext(pieces, b"")
    except BaseException:
        await pieces.aclose()
        raise
    return StreamResponse(200, _body(first, pieces, listing), "application/json")


def encoded(value: Any) -> bytes:
    """JSON in UTF-8."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


async def _body(first: bytes, pieces: AsyncGenerator[bytes, None], listing: Listing) -> AsyncIterator[bytes]:
    records = Records(listing.separator)
    is_open = False
    piece = first
    try:
        while piece:
            found = (listing.feed(record) for record in records.feed(piece))
            entries = b", ".join(encoded(entry) for entry in found if entry is not None)
            if entries:
                yield (b", " if is_open else listing.opening()) + entries
                is_open = True
            piece = await anext(pieces, b"")
        yield (b"" if is_open else listing.opening()) + listing.closing()
    finally:
        await pieces.aclose()


async def _pieces(git: Git, command: Command) -> AsyncGenerator[bytes, None]:
    with git.started(command) as running:
        while piece := await _in_time(running.read(), command):
            yield piece
        code = await _in_time(running.exit_code(), command)
        if code != 0:
            raise failure(Finished(code, b"", running.errors()))


async def _in_time(waiting: Awaitable[Result], command: Command) -> Result:
    try:
        async with asyncio.timeout(command.seconds):
            return await waiting
    except TimeoutError as error:
        raise TookTooLong(f"git {command.arguments[0]} gave nothing for {command.seconds:g} seconds") from error


def _file(record: str) -> dict[str, str]:
    """One entry; its name is the last field and may hold spaces."""
    kind = record[:1]
    before = _FIELDS_BEFORE_NAME.get(kind)
    if before is None:
        raise GitFailed(f"git status gave a record of an unknown kind: {record[:80]!r}")
    fields = record.split(" ", before)
    if kind == "?":
        staging = worktree = _WORDS["?"]
    elif kind == "u":
        staging = worktree = _WORDS["U"]
    else:
        staging, worktree = (_WORDS.get(letter, "Modified") for letter in fields[1])
    return {"name": fields[-1], "staging": staging, "worktree": worktree, "extra": ""}
