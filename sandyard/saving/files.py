"""Folders of a data directory as a tar: owners, modes, links, devices that white out, extended attributes, holes."""

import os
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from sandyard.saving.errors import Unreadable, UnsafeMember

HOMES = ("sandboxes", "images", "volumes", "objects", "registry")
"""Local sandboxes, what was kept of some, the volumes of all, what builds are made from, and pushed images."""
SANDBOXES = HOMES[0]
XATTR = "SCHILY.xattr."
"""*Source:* pax headers as GNU tar and libarchive write them."""
HOLE = 1 << 16
"""Bytes that are left out together where all are zero."""
CHUNK = 16 * HOLE
ZEROS = bytes(CHUNK)


def write(target: Path, data_dir: Path) -> list[str]:
    """Write every home that is there; the ids of the local sandboxes. Raises `Unreadable`."""
    with tarfile.open(target, mode="w:gz", compresslevel=1, format=tarfile.PAX_FORMAT) as archive:
        for name in HOMES:
            if (data_dir / name).is_dir():
                _add_tree(archive, data_dir / name, name)
    home = data_dir / SANDBOXES
    return sorted(path.name for path in home.iterdir() if path.is_dir()) if home.is_dir() else []


def read(source: Path, home: Path) -> None:
    """Unpack into `home`, which is made. Raises `UnsafeMember`."""
    home.mkdir(mode=0o700)
    root = home.resolve()
    directories: list[tuple[Path, tarfile.TarInfo]] = []
    with _Sparse.open(source, mode="r:gz") as archive:
        # What may be written where is checked below; newer Pythons would change modes and refuse devices by themselves.
        archive.extraction_filter = lambda member, _path: member
        for member in archive:
            target = _checked(root, member)
            archive.extract(member, home, numeric_owner=True, set_attrs=not member.isdir())
            if member.isdir():
                target.chmod(0o700)
                directories.append((target, member))
            elif member.issym():  # of these the library keeps everything but the time
                os.utime(target, (member.mtime, member.mtime), follow_symlinks=False)
            _set_attributes(target, member)
    # Last and inside out: a directory that is closed could not be filled, and filling changes its time.
    for target, member in reversed(directories):
        if os.geteuid() == 0:
            os.chown(target, member.uid, member.gid)
        target.chmod(member.mode)
        os.utime(target, (member.mtime, member.mtime))


class _Sparse(tarfile.TarFile):
    """Unpacks files with holes where they have nothing but zeros."""

    def makefile(self, tarinfo: tarfile.TarInfo, targetpath: Any) -> None:
        stream = self.extractfile(tarinfo)
        if stream is None:
            raise tarfile.ReadError(f"{tarinfo.name} has no content")
        with open(targetpath, "wb") as file:
            while chunk := stream.read(CHUNK):
                _write(file, chunk)
            file.truncate(tarinfo.size)


def _write(file: IO[bytes], chunk: bytes) -> None:
    if chunk == ZEROS[: len(chunk)]:
        file.seek(len(chunk), os.SEEK_CUR)
        return
    for at in range(0, len(chunk), HOLE):
        piece = chunk[at : at + HOLE]
        if piece == ZEROS[: len(piece)]:
            file.seek(len(piece), os.SEEK_CUR)
        else:
            file.write(piece)


def _add_tree(archive: tarfile.TarFile, top: Path, name: str) -> None:
    """Parents before what is in them; without recursion, since trees of sandboxes may be deeper than our stack."""
    waiting: list[tuple[Path, tuple[str, ...]]] = [(top, (name,))]
    while waiting:
        path, parts = waiting.pop()
        if _is_transient(parts):
            continue
        try:
            _add(archive, path, "/".join(parts))
            if path.is_dir() and not path.is_symlink() and not _is_scratch(parts):
                waiting += [(path / child, (*parts, child)) for child in sorted(os.listdir(path), reverse=True)]
        except PermissionError as error:
            raise Unreadable(
                f"{path} cannot be read: {error.strerror}; save as the user who may, such as root"
            ) from error


def _is_transient(parts: tuple[str, ...]) -> bool:
    """What tells of processes that ran: they do not outlive the saving. Also what was cut short and is not whole."""
    return (len(parts) == 3 and parts[0] == SANDBOXES and parts[2] == "run.json") or (
        len(parts) == 2 and parts[1].startswith(".")
    )


def _is_scratch(parts: tuple[str, ...]) -> bool:
    """An overlay's own working directory: it must be there, and what is in it is the kernel's."""
    return len(parts) == 4 and parts[0] == SANDBOXES and parts[2] == "work"


def _add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    member = archive.gettarinfo(path, name)
    if member is None:
        return  # a socket is nobody's once its process ended
    for attribute, value in _attributes(path):
        member.pax_headers = {**member.pax_headers, XATTR + attribute: value.decode("utf-8", "surrogateescape")}
    if member.isreg():
        with path.open("rb") as file:
            archive.addfile(member, file)
    else:
        archive.addfile(member)


def _attributes(path: Path) -> list[tuple[str, bytes]]:
    with suppress(OSError):
        names = os.listxattr(path, follow_symlinks=False)
        return [(name, os.getxattr(path, name, follow_symlinks=False)) for name in names]
    return []


def _set_attributes(path: Path, member: tarfile.TarInfo) -> None:
    for key, value in member.pax_headers.items():
        if key.startswith(XATTR):
            with suppress(OSError):  # another file system may take fewer
                data = value.encode("utf-8", "surrogateescape")
                os.setxattr(path, key.removeprefix(XATTR), data, follow_symlinks=False)


def _checked(root: Path, member: tarfile.TarInfo) -> Path:
    """Where the member goes: below `root` whatever links there are by now."""
    target = root / member.name
    parts = Path(member.name).parts
    if not parts or member.name.startswith("/") or ".." in parts or not _is_below(root, target.parent):
        raise UnsafeMember(f"{member.name} would be written outside its sandbox")
    if parts[0] not in HOMES:
        raise UnsafeMember(f"{member.name} is in no folder that is saved")
    if member.islnk() and (".." in Path(member.linkname).parts or not _is_below(root, (root / member.linkname).parent)):
        raise UnsafeMember(f"{member.name} would be linked to something outside its sandbox")
    return target


def _is_below(root: Path, folder: Path) -> bool:
    return folder.resolve().is_relative_to(root)
