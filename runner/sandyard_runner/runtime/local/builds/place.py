"""Puts what COPY, ADD and WORKDIR name into the sandbox's own files. Runs inside, with the bundle's interpreter.

Links on the way lead nowhere but to the sandbox itself, since its root is the root here. Its one argument is a file
with the order, as `builder` writes it; what goes wrong is said in one line, with exit status 1.
"""

import contextlib
import json
import os
import shutil
import sys
import tarfile
from typing import Any


class Refused(Exception):
    """It cannot be put there."""


def main() -> int:
    with open(sys.argv[1], encoding="utf-8", errors="surrogateescape") as file:
        order = json.load(file)
    try:
        place(order)
    except (Refused, OSError, tarfile.TarError) as error:
        sys.stdout.write(f"{error}\n")
        return 1
    return 0


def place(order: dict[str, Any]) -> None:
    """Do what an order says. Raises `Refused`, `OSError`."""
    target = order["target"]
    os.umask(0o022)
    if order["is_folder"]:
        make_folder(target, order["owner"])
    elif os.path.isdir(target):
        target = os.path.join(target, order["name"])
    archives = [tarfile.open(path, "r:*") for path in order["archives"]]
    members = [archive.getmembers() for archive in archives]
    for number, entry, below in order["files"]:
        path = os.path.join(target, below) if order["is_folder"] else target
        put(archives[number], members[number][entry], path, order)


def put(archive: tarfile.TarFile, member: tarfile.TarInfo, path: str, order: dict[str, Any]) -> None:
    """One file, folder or link."""
    make_folder(os.path.dirname(path), order["owner"])
    mode = order["mode"] if order["mode"] is not None else member.mode & 0o7777
    if member.isdir():
        make_folder(path, order["owner"])
        os.chmod(path, mode)
        return
    if os.path.isdir(path) and not os.path.islink(path):
        raise Refused(f"cannot replace the folder {path} by a file")
    if order["unpack"] and member.isreg() and unpack(archive, member, path, order):
        return
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    if member.issym():
        os.symlink(member.linkname, path)
        own(path, order["owner"])
        return
    content = archive.extractfile(member)
    if content is None:
        raise Refused(f"{member.name} is a link that leads nowhere")
    with open(path, "wb") as file:
        shutil.copyfileobj(content, file, 1 << 20)
    own(path, order["owner"])
    os.chmod(path, mode)
    os.utime(path, (member.mtime, member.mtime))


def unpack(archive: tarfile.TarFile, member: tarfile.TarInfo, path: str, order: dict[str, Any]) -> bool:
    """What ADD does to an archive: its content goes where the archive would. False for what is none."""
    content = archive.extractfile(member)
    try:
        packed = tarfile.open(fileobj=content, mode="r:*")
    except tarfile.TarError:
        return False
    folder = os.path.dirname(path) if order["is_folder"] else path
    make_folder(folder, order["owner"])
    with packed:
        # Whatever it holds stays in the sandbox; where nobody but root may give files away, nobody does.
        packed.extraction_filter = getattr(tarfile, "fully_trusted_filter", None)
        packed.extractall(folder, numeric_owner=True)  # noqa: S202  see above
    return True


def make_folder(path: str, owner: "list[int] | None") -> None:
    """With its parents; what is there is left as it is."""
    missing = []
    while path and not os.path.isdir(path):
        if os.path.lexists(path) and not os.path.islink(path):
            raise Refused(f"{path} is not a folder")
        missing.append(path)
        path = os.path.dirname(path)
    for folder in reversed(missing):
        os.mkdir(folder)
        own(folder, owner)


def own(path: str, owner: "list[int] | None") -> None:
    """Give a file to its owner; `None` where there is one user only."""
    if owner is not None:
        os.chown(path, owner[0], owner[1], follow_symlinks=False)


if __name__ == "__main__":
    sys.exit(main())
