"""The directories of local sandboxes as a tar: owners, modes, links, devices that white out, extended attributes."""

import os
import tarfile
from contextlib import suppress
from pathlib import Path

from sandyard.saving.errors import UnsafeMember

TRANSIENT = frozenset({"run.json"})
"""Of the processes that ran; they do not outlive the saving."""
XATTR = "SCHILY.xattr."
"""*Source:* pax headers as GNU tar and libarchive write them."""


def write(target: Path, sandboxes: Path) -> list[str]:
    """Write all sandboxes; their ids."""
    ids = sorted(path.name for path in sandboxes.iterdir() if path.is_dir()) if sandboxes.is_dir() else []
    with tarfile.open(target, mode="w:gz", compresslevel=1, format=tarfile.PAX_FORMAT) as archive:
        for sandbox_id in ids:
            _add(archive, sandboxes / sandbox_id, sandbox_id)
    return ids


def read(source: Path, home: Path) -> None:
    """Unpack into `home`, which is made. Raises `UnsafeMember`."""
    home.mkdir(mode=0o700)
    root = home.resolve()
    directories: list[tuple[Path, tarfile.TarInfo]] = []
    with tarfile.open(source, mode="r:gz") as archive:
        # What may be written where is checked below; newer Pythons would change modes and refuse devices by themselves.
        archive.extraction_filter = lambda member, _path: member
        for member in archive:
            target = _checked(root, member)
            archive.extract(member, home, numeric_owner=True, set_attrs=not member.isdir())
            if member.isdir():
                target.chmod(0o700)
                directories.append((target, member))
            _set_attributes(target, member)
    # Last and inside out: a directory that is closed could not be filled, and filling changes its time.
    for target, member in reversed(directories):
        if os.geteuid() == 0:
            os.chown(target, member.uid, member.gid)
        target.chmod(member.mode)
        os.utime(target, (member.mtime, member.mtime))


def _add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    member = archive.gettarinfo(path, name)
    if member is None or path.name in TRANSIENT:
        return  # a socket is nobody's once its process ended
    for attribute, value in _attributes(path):
        member.pax_headers = {**member.pax_headers, XATTR + attribute: value.decode("utf-8", "surrogateescape")}
    if member.isreg():
        with path.open("rb") as file:
            archive.addfile(member, file)
        return
    archive.addfile(member)
    if member.isdir() and path.parent.name != "work":
        for child in sorted(path.iterdir()):
            _add(archive, child, f"{name}/{child.name}")


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
    if member.islnk() and (".." in Path(member.linkname).parts or not _is_below(root, (root / member.linkname).parent)):
        raise UnsafeMember(f"{member.name} would be linked to something outside its sandbox")
    return target


def _is_below(root: Path, folder: Path) -> bool:
    return folder.resolve().is_relative_to(root)
