"""The host's folders that sandboxes may be given, as the setting SANDYARD_HOST_FOLDERS has them. Off unless set."""

import os
from collections.abc import Sequence

import msgspec

SCHEME = "host:"
"""How a request names a folder of the host where others name a volume: `host:/absolute/path`."""
SETTING = "SANDYARD_HOST_FOLDERS"
READ_ONLY = ":ro"


class HostFolder(msgspec.Struct, frozen=True):
    """A folder that may be mounted, with everything below it."""

    path: str
    read_only: bool = False


class Granted(msgspec.Struct, frozen=True):
    """Where a path that may be mounted really is."""

    root: str
    """The folder that allows it, without links in it: nobody but the host's own users decides where it leads."""
    parts: tuple[str, ...]
    """What follows; sandboxes may have changed it since, so it is opened without following links."""
    read_only: bool


def parse_host_folders(text: str) -> tuple[HostFolder, ...]:
    """`/home/me/projects,/srv/data:ro`. Raises `ValueError`."""
    folders = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        path = part.removesuffix(READ_ONLY)
        if not path.startswith("/") or os.path.normpath(path) in ("/", "//"):
            raise ValueError(f"{part!r} is not an absolute path of a folder, with {READ_ONLY} behind it where wanted")
        folders.append(HostFolder(os.path.normpath(path), part.endswith(READ_ONLY)))
    return tuple(folders)


def grant(allowed: Sequence[HostFolder], path: str) -> Granted | None:
    """Where `path` is once links are followed; `None` when that is in no allowed folder. The innermost one counts."""
    if not path.startswith("/"):
        return None
    resolved = os.path.realpath(path)
    roots = sorted(((os.path.realpath(folder.path), folder) for folder in allowed), key=lambda pair: -len(pair[0]))
    for root, folder in roots:
        if resolved == root or resolved.startswith(f"{root}/"):
            parts = tuple(part for part in resolved[len(root) :].split("/") if part)
            return Granted(root, parts, folder.read_only)
    return None
