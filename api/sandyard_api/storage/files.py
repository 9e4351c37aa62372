"""Build contexts as files below one directory: `<organization>/<hash>/context.tar`. Blocking; bounded in size."""

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import msgspec

UPLOADS = ".uploads"
CONTEXT = "context.tar"
MD5 = "context.md5"
SEGMENT = re.compile(r"[0-9A-Za-z_-]{1,128}")
STALE_UPLOAD_SECONDS = 24 * 3600.0
MAX_OPEN_UPLOADS = 64
MAX_PARTS = 10_000
COPY_BYTES = 1 << 20


class StorageFull(Exception):
    """More than the storage may hold, or than one object may."""


class NoSuchUpload(Exception):
    """No multipart upload of that id and object."""


class StoredObject(msgspec.Struct, frozen=True):
    """One object that is there."""

    key: str
    size_bytes: int
    modified_at: float
    """Seconds since 1970."""
    etag: str


class ObjectFiles:
    """The objects. Whole ones appear at once, by a rename; what was cut short is never seen."""

    def __init__(self, folder: Path, *, max_bytes: int, max_object_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self.max_object_bytes = max_object_bytes

    def path(self, organization_id: str, context_hash: str) -> Path | None:
        """The file of a context; `None` when it is not there."""
        if not SEGMENT.fullmatch(organization_id) or not SEGMENT.fullmatch(context_hash):
            return None
        path = self._folder / organization_id / context_hash / CONTEXT
        return path if path.is_file() else None

    def find(self, organization_id: str, context_hash: str) -> StoredObject | None:
        """What is stored under that hash."""
        path = self.path(organization_id, context_hash)
        if path is None:
            return None
        found = path.stat()
        try:
            etag = path.with_name(MD5).read_text(encoding="ascii")
        except FileNotFoundError:
            etag = f"{found.st_size:x}-{found.st_mtime_ns:x}"
        return StoredObject(f"{organization_id}/{context_hash}/{CONTEXT}", found.st_size, found.st_mtime, etag)

    def touch(self, organization_id: str, context_hash: str, at: float) -> None:
        """Note that it was looked at: who finds it there does not send it again, and may be about to use it."""
        path = self.path(organization_id, context_hash)
        if path is not None:
            with contextlib.suppress(FileNotFoundError):
                os.utime(path, (at, at))

    def unused_since(self, before: float) -> list[tuple[str, str]]:
        """Organization and hash of everything that nobody looked at since."""
        found = []
        for path in self._folder.glob(f"[!.]*/*/{CONTEXT}"):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    found.append((path.parent.parent.name, path.parent.name))
        return sorted(found)

    def remove(self, organization_id: str, context_hash: str, before: float) -> bool:
        """Remove a context unless somebody looked at it since; whether it is gone."""
        path = self.path(organization_id, context_hash)
        if path is None or path.stat().st_mtime >= before:
            return False
        shutil.rmtree(path.parent)
        with contextlib.suppress(OSError):  # another one is there
            path.parent.parent.rmdir()
        return True

    def objects(self, organization_id: str) -> Iterator[StoredObject]:
        """Everything of an organization, by key."""
        folder = self._folder / organization_id
        for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
            found = self.find(organization_id, entry.name)
            if found is not None:
                yield found

    def receive(self) -> IO[bytes]:
        """A file to write a body to; it vanishes when it is closed without `keep`. Raises `StorageFull`."""
        uploads = self._uploads()
        if self._size() >= self._max_bytes:
            raise StorageFull(
                f"the object storage holds {self._max_bytes >> 20} MiB already; remove contexts from {self._folder}"
            )
        return tempfile.NamedTemporaryFile(dir=uploads, prefix="body-")

    def keep(self, received: IO[bytes], organization_id: str, context_hash: str, etag: str, at: float) -> None:
        """Make a received body the object."""
        received.flush()
        folder = self._folder / organization_id / context_hash
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{Path(received.name).name}"
        temporary.hardlink_to(received.name)
        os.utime(temporary, (at, at))
        (folder / MD5).write_text(etag, encoding="ascii")
        temporary.replace(folder / CONTEXT)

    def begin_parts(self, upload_id: str, organization_id: str, context_hash: str) -> None:
        """Open a multipart upload. Raises `StorageFull` when too many are open."""
        uploads = self._uploads()
        open_ones = [entry for entry in uploads.iterdir() if entry.is_dir()]
        if len(open_ones) >= MAX_OPEN_UPLOADS:
            raise StorageFull(f"{MAX_OPEN_UPLOADS} uploads are open already")
        (uploads / upload_id).mkdir()
        (uploads / upload_id / "key").write_text(f"{organization_id}/{context_hash}", encoding="ascii")

    def keep_part(self, received: IO[bytes], upload_id: str, key: tuple[str, str], number: int) -> None:
        """Make a received body a part. Raises `NoSuchUpload` and `StorageFull`."""
        folder = self._upload(upload_id, key)
        received.flush()
        size = Path(received.name).stat().st_size
        others = sum(part.stat().st_size for part in folder.glob("part-*") if part.name != f"part-{number:05d}")
        if size + others > self.max_object_bytes:
            raise StorageFull(f"an object may have {self.max_object_bytes >> 20} MiB")
        part = folder / f"part-{number:05d}"
        part.unlink(missing_ok=True)
        part.hardlink_to(received.name)

    def complete_parts(self, upload_id: str, key: tuple[str, str], at: float) -> str:
        """Join the parts in the order of their numbers; gives the ETag. Raises `NoSuchUpload`."""
        folder = self._upload(upload_id, key)
        parts = sorted(folder.glob("part-*"))
        if not parts:
            raise NoSuchUpload(upload_id)
        digests = hashlib.md5(usedforsecurity=False)
        with self.receive() as whole:
            for part in parts:
                digest = hashlib.md5(usedforsecurity=False)
                with part.open("rb") as file:
                    while chunk := file.read(COPY_BYTES):
                        digest.update(chunk)
                        whole.write(chunk)
                digests.update(digest.digest())
            etag = f"{digests.hexdigest()}-{len(parts)}"
            self.keep(whole, *key, etag, at)
        shutil.rmtree(folder)
        return etag

    def abort_parts(self, upload_id: str, key: tuple[str, str]) -> None:
        """Drop an upload. Raises `NoSuchUpload`."""
        shutil.rmtree(self._upload(upload_id, key))

    def _upload(self, upload_id: str, key: tuple[str, str]) -> Path:
        folder = self._folder / UPLOADS / upload_id
        is_ours = bool(SEGMENT.fullmatch(upload_id)) and (folder / "key").is_file()
        if not is_ours or (folder / "key").read_text(encoding="ascii") != "/".join(key):
            raise NoSuchUpload(upload_id)
        return folder

    def _uploads(self) -> Path:
        uploads = self._folder / UPLOADS
        uploads.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        before = time.time() - STALE_UPLOAD_SECONDS
        for entry in list(uploads.iterdir()):
            if entry.stat().st_mtime < before:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink(missing_ok=True)
        return uploads

    def _size(self) -> int:
        return sum(path.stat().st_size for path in self._folder.rglob("*") if path.is_file())
