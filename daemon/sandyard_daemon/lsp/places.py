"""What clients call a project or a document, and which file that is."""

import os
import re
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from urllib.parse import unquote

from sandyard_daemon.errors import BadRequest

MAX_DOCUMENT = 4 << 20
"""Bytes of a file that is handed to a server."""

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_SKIPPED = frozenset({"node_modules", "__pycache__", "site-packages"})
_MAX_ENTRIES = 20_000


def project(name: str, work_dir: str) -> str:
    """The project's absolute path. Raises `BadRequest` when it is no directory."""
    path = project_name(name, work_dir)
    if not os.path.isdir(path):
        raise BadRequest(f"pathToProject: {path} is not a directory")
    return path


def project_name(name: str, work_dir: str) -> str:
    """The same for a project that need not be there any more."""
    return os.path.abspath(os.path.join(work_dir, _path_in(name, "pathToProject")))


def document(uri: str, project_path: str, work_dir: str, known: Collection[str]) -> str:
    """The document's absolute path: what is there, or one of the `known`, else what the plain reading gives.

    SDKs put `file://` before whatever path they were given, relative ones included, and encode nothing. Those are read
    from the work directory, then from the project. Raises `BadRequest`.
    """
    candidates = list(_candidates(_path_in(uri, "uri"), project_path, work_dir))
    for path in candidates:
        if path in known or os.path.isfile(path):
            return path
    return candidates[0]


def as_uri(path: str) -> str:
    """As the protocol writes it."""
    return Path(path).as_uri()


def read(path: str) -> tuple[str, tuple[int, int]]:
    """The text and a mark that changes with it. Blocks. Raises `BadRequest` for what is no file of a sensible size."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a named pipe must not hold us up
    except OSError as error:
        raise BadRequest(f"cannot read {path}: {error.strerror}") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise BadRequest(f"cannot read {path}: it is not a regular file")
    with open(descriptor, "rb") as file:
        data = file.read(MAX_DOCUMENT + 1)
    if len(data) > MAX_DOCUMENT:
        raise BadRequest(f"{path} is larger than {MAX_DOCUMENT} bytes")
    return data.decode("utf-8", "replace"), (status.st_mtime_ns, status.st_size)


def first_source(project_path: str, names: re.Pattern[str]) -> str | None:
    """Some file of the project that a server reads; hidden and installed ones left out. Blocks, boundedly."""
    seen = 0
    for folder, folders, files in os.walk(project_path):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _SKIPPED)
        for name in sorted(files):
            if names.search(name):
                return os.path.join(folder, name)
        seen += len(folders) + len(files)
        if seen > _MAX_ENTRIES:
            return None
    return None


def _candidates(path: str, project_path: str, work_dir: str) -> Iterator[str]:
    for reading in dict.fromkeys((path, unquote(path))):
        for base in (work_dir, project_path):
            candidate = os.path.abspath(os.path.join(base, reading))
            if "\0" not in candidate:
                yield candidate


def _path_in(uri: str, name: str) -> str:
    match = _SCHEME.match(uri)
    if match is not None and match[1].lower() != "file":
        raise BadRequest(f"{name}: only file:// is supported, not {match[0]}")
    path = uri[match.end() :] if match else uri
    if "\0" in path or not path.strip():
        raise BadRequest(f"{name} names no path")
    return path
