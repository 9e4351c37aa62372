"""Blobs on their way in: files that grow request by request. Blocking."""

import errno
import fcntl
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

MEASURE_BYTES = 64 << 20
"""How much is written before the room is measured again: what uploads side by side may exceed it by, each."""
READ_BYTES = 1 << 20


class RegistryFull(Exception):
    """More than the registry may hold, or than the disk has room for."""


class TooManyUploads(Exception):
    """So many are open that another one would be one too many."""


class NoSuchUpload(Exception):
    """None of that id, or not any more."""


class UploadBusy(Exception):
    """Another request writes to it."""


class WrongDigest(Exception):
    """The content is not the one that its digest says."""


class Digests:
    """SHA-256 of the uploads as far as this process wrote them; what another one wrote is read again at the end."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: dict[Path, tuple[int, Any]] = {}

    def take(self, path: Path, size: int) -> Any:
        """The running digest of the first `size` bytes; `None` where it is not known."""
        known_size, digest = self._known.pop(path, (0, None))
        if size == 0:
            return hashlib.sha256()
        return digest if known_size == size else None

    def keep(self, path: Path, size: int, digest: Any) -> None:
        """For the next request."""
        if len(self._known) >= self._most:
            self._known.pop(next(iter(self._known)))
        self._known[path] = (size, digest)


class Upload:
    """One upload, held by one request. Raises `NoSuchUpload` and `UploadBusy` when it is opened."""

    def __init__(self, path: Path, digests: Digests, room: Callable[[], int]) -> None:
        self.path = path
        self._digests = digests
        self._room = room
        self._budget = 0
        try:
            # Without a buffer, in which what a full disk did not take would wait to fail again.
            self._file = path.open("r+b", buffering=0)
        except FileNotFoundError as error:
            raise NoSuchUpload(path.name) from error
        try:
            self._hold()
        except BaseException:
            self._file.close()
            raise
        self.size = self._file.seek(0, os.SEEK_END)
        self._digest = digests.take(path, self.size)

    def _hold(self) -> None:
        try:
            # Held by the open file: it ends with us, however we end, and counts for every process of ours.
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_there = os.path.samestat(os.fstat(self._file.fileno()), self.path.stat())
        except BlockingIOError as error:
            raise UploadBusy(self.path.name) from error
        except FileNotFoundError as error:
            raise NoSuchUpload(self.path.name) from error
        if not is_there:  # who held it before made a blob of it, which must not be written to
            raise NoSuchUpload(self.path.name)

    def append(self, piece: bytes) -> None:
        """Write what comes next. Raises `RegistryFull`, and nothing of the piece counts then."""
        if len(piece) > self._budget:
            self._budget = min(self._room(), MEASURE_BYTES)
            if len(piece) > self._budget:
                raise RegistryFull("the registry is full")
        self._budget -= len(piece)
        try:
            left = memoryview(piece)
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise RegistryFull("the registry's disk is full") from error
        if self._digest is not None:
            self._digest.update(piece)
        self.size += len(piece)

    def rewind(self, size: int) -> None:
        """Forget what came behind the first `size` bytes."""
        self._file.truncate(size)
        self._file.seek(size)
        self._digest = None if size else hashlib.sha256()
        self.size = size

    def digest(self) -> str:
        """SHA-256 of all that came, in hexadecimal."""
        if self._digest is None:
            self._digest = hashlib.sha256()
            self._file.seek(0)
            while chunk := self._file.read(READ_BYTES):
                self._digest.update(chunk)
        digest: str = self._digest.hexdigest()
        return digest

    def become(self, target: Path) -> None:
        """Move it to where it is to be found, whole."""
        self._digest = None
        self.path.replace(target)

    def sync(self) -> None:
        """Bring it to the disk: a blob that a crash took the content of would never be sent again."""
        os.fsync(self._file.fileno())

    def discard(self) -> None:
        """Remove it."""
        self._digest = None
        self.path.unlink(missing_ok=True)

    def close(self, at: float) -> None:
        """Let the next request have it; `at`, seconds since 1970, is when it was last written to."""
        if not self._file.closed:
            os.utime(self._file.fileno(), (at, at))
            if self._digest is not None and self.size:
                self._digests.keep(self.path, self.size, self._digest)
            self._file.close()
