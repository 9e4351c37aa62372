"""What COPY and ADD may take: the members of a build's contexts, found by path or pattern. Reads tar files only."""

import fnmatch
import hashlib
import posixpath
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import msgspec

from sandyard_runner.errors import RuntimeFailure

MAX_MEMBERS = 500_000
MAX_BYTES = 8 << 30
READ_BYTES = 1 << 20
PATTERN = re.compile(r"[*?\[]")


class Member(msgspec.Struct, frozen=True):
    """A file, folder or link of a context."""

    archive: int
    """Which of the contexts it is in."""
    number: int
    """Its place there."""
    is_directory: bool
    digest: str
    """Of what it is and holds."""


class Chosen(msgspec.Struct, frozen=True):
    """A member and where it goes below the target; empty is the target itself."""

    member: Member
    place: str


class Context:
    """Every member by its path below the context's root; a later one of the same path replaces an earlier."""

    def __init__(self, members: dict[str, Member]) -> None:
        self._members = members

    @classmethod
    def read(cls, archives: Sequence[Path]) -> "Context":
        """Blocks. Raises `RuntimeFailure` for what is no tar file, or too much."""
        members: dict[str, Member] = {}
        size = 0
        for archive, path in enumerate(archives):
            try:
                with tarfile.open(path, "r:*") as opened:
                    for number, entry in enumerate(opened):
                        size += entry.size
                        if len(members) >= MAX_MEMBERS or size > MAX_BYTES:
                            limit = f"{MAX_MEMBERS} files and {MAX_BYTES >> 30} GiB at most"
                            raise RuntimeFailure(f"the build context is too large: {limit}")
                        name = inside(entry.name)
                        if name and (entry.isreg() or entry.isdir() or entry.issym() or entry.islnk()):
                            members[name] = Member(archive, number, entry.isdir(), _digest(opened, entry))
            except (tarfile.TarError, EOFError, OSError) as error:
                raise RuntimeFailure(f"a build context is not a tar file: {error}") from error
        return cls(members)

    def choose(self, source: str) -> list[Chosen]:
        """What a path or pattern names: of a folder its content, of anything else itself by its name."""
        wanted = inside(source)
        names = [wanted] if not PATTERN.search(wanted) else [name for name in self._tops() if _fits(name, wanted)]
        return [chosen for name in names for chosen in self._of(name)]

    def is_folder(self, source: str) -> bool:
        """Whether a path, not a pattern, names a folder, also one that is there only by what is in it."""
        wanted = inside(source)
        member = self._members.get(wanted)
        if member is not None:
            return member.is_directory
        return not wanted or any(name.startswith(f"{wanted}/") for name in self._members)

    def _of(self, name: str) -> list[Chosen]:
        if not self.is_folder(name):
            member = self._members.get(name)
            return [Chosen(member, posixpath.basename(name))] if member is not None else []
        prefix = f"{name}/" if name else ""
        below = sorted(path for path in self._members if path.startswith(prefix) and path != name)
        return [Chosen(self._members[path], path[len(prefix) :]) for path in below]

    def _tops(self) -> list[str]:
        """Every path there is, also of folders that are there only by what is in them."""
        found = set(self._members)
        for name in self._members:
            found.update(str(parent) for parent in PurePosixPath(name).parents if str(parent) != ".")
        return sorted(found)


def inside(name: str) -> str:
    """A path below the context's root, whatever it says."""
    return "/".join(part for part in PurePosixPath(name).parts if part not in ("/", "..", "."))


def _fits(name: str, pattern: str) -> bool:
    """As Go's `filepath.Match`: no wildcard goes over a slash."""
    parts, wanted = name.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))


def _digest(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> str:
    digest = hashlib.sha256(f"{entry.type!r} {entry.mode:o} {entry.linkname}\0".encode(errors="surrogateescape"))
    content = archive.extractfile(entry) if entry.isreg() else None
    while content is not None and (chunk := content.read(READ_BYTES)):
        digest.update(chunk)
    return digest.hexdigest()
