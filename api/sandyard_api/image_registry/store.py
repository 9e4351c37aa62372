"""The registry's files below one directory. Blocking; bounded in size; any number of processes may share them.

```
<organization>/blobs/<sha256>                                one for all repositories of the organization
<organization>/repositories/<name>/manifests/<sha256>        the media type in the first line, then the manifest
<organization>/repositories/<name>/tags/<tag>                the digest of its manifest
.uploads/<organization>/<id>                                 what is on its way in
```

In `<name>` a plus stands for each slash. The time of a tag is when somebody last asked for it, by the users' clock; of
everything else, when it last came or was asked for, by the machine's.
"""

import fcntl
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sandyard_api.image_registry.manifests import Manifest, read_manifest
from sandyard_api.image_registry.names import Repository
from sandyard_api.image_registry.uploads import Digests, NoSuchUpload, RegistryFull, TooManyUploads, Upload, WrongDigest

UPLOADS = ".uploads"
LOCK = ".lock"
BLOBS, REPOSITORIES, MANIFESTS, TAGS = "blobs", "repositories", "manifests", "tags"
MAX_UPLOADS = 256


class NotThere(Exception):
    """A manifest refers to what the registry does not have; the message is the digest."""


class ImageStore:
    """Blobs, manifests and tags. Each appears at once, by a rename; what was cut short is never seen.

    Digests are 64 hexadecimal digits, times seconds since 1970. Organizations, repositories, tags and ids of uploads
    must have been checked: they become parts of paths.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._folder = folder
        self._digests = Digests(MAX_UPLOADS)
        self.max_bytes = max_bytes

    def is_used(self) -> bool:
        """Whether anything ever came."""
        return self._folder.is_dir()

    def room(self) -> int:
        """Bytes that may still come; zero or less in a full registry."""
        return self.max_bytes - _size(self._folder)

    # Blobs and uploads.

    def blob(self, organization_id: str, digest: str, at: float) -> Path | None:
        """A blob's file; `None` when it is not there. Who finds it there does not send it again: it is kept a while."""
        path = self._folder / organization_id / BLOBS / digest
        with self._locked():
            return path if _touch(path, at) else None

    def begin(self, organization_id: str, upload_id: str, at: float) -> None:
        """Make an upload. Raises `TooManyUploads`."""
        uploads = self._uploads(organization_id)
        if sum(1 for _ in uploads.iterdir()) >= MAX_UPLOADS:
            raise TooManyUploads(f"{MAX_UPLOADS} uploads are open already")
        (uploads / upload_id).touch(exist_ok=False)
        _touch(uploads / upload_id, at)

    def open(self, organization_id: str, upload_id: str) -> Upload:
        """An upload to write to, which the caller closes. Raises `NoSuchUpload` and `UploadBusy`."""
        return Upload(self._folder / UPLOADS / organization_id / upload_id, self._digests, self.room)

    def upload_size(self, organization_id: str, upload_id: str) -> int:
        """Bytes that came so far. Raises `NoSuchUpload`."""
        try:
            return (self._folder / UPLOADS / organization_id / upload_id).stat().st_size
        except FileNotFoundError as error:
            raise NoSuchUpload(upload_id) from error

    def finish(self, upload: Upload, organization_id: str, digest: str, at: float) -> None:
        """Make an upload the blob of that digest. Raises `WrongDigest`; the upload is gone either way."""
        if upload.digest() != digest:
            upload.discard()
            raise WrongDigest(f"what came is not sha256:{digest}")
        upload.sync()
        path = self._folder / organization_id / BLOBS / digest
        with self._locked():
            path.parent.mkdir(parents=True, exist_ok=True)
            upload.become(path)
            _touch(path, at)

    def remove_uploads(self, before: float) -> None:
        """Remove those that nothing was written to since."""
        for path in (self._folder / UPLOADS).rglob("*"):
            if path.is_file():
                _remove_old(path, before)

    # Manifests and tags.

    def put(self, repository: Repository, manifest: Manifest, tag: str | None, at: float, tagged_at: float) -> None:
        """Keep a manifest, under a tag if one is given. Raises `NotThere` and `RegistryFull`."""
        if self.room() < len(manifest.content):
            raise RegistryFull("the registry is full")
        folder, blobs = self._of(repository), self._folder / repository.organization_id / BLOBS
        with self._locked():
            needed = [blobs / digest for digest in manifest.blobs]
            needed += [folder / MANIFESTS / digest for digest in manifest.manifests]
            for path in needed:
                if not _touch(path, at):
                    raise NotThere(f"sha256:{path.name}")
            content = manifest.media_type.encode("ascii") + b"\n" + manifest.content
            self._place(folder / MANIFESTS / manifest.digest, content, at)
            if tag is not None:
                self._place(folder / TAGS / tag, manifest.digest.encode("ascii"), tagged_at)

    def tagged(self, repository: Repository, tag: str, at: float) -> str | None:
        """The digest that a tag stands for; `None` when there is no such tag. It counts as asked for."""
        path = self._of(repository) / TAGS / tag
        with self._locked():
            return path.read_text(encoding="ascii") if _touch(path, at) else None

    def manifest(self, repository: Repository, digest: str) -> Manifest | None:
        """A manifest; `None` when it is not there."""
        try:
            stored = (self._of(repository) / MANIFESTS / digest).read_bytes()
        except FileNotFoundError:
            return None
        media_type, _, content = stored.partition(b"\n")
        return read_manifest(media_type.decode("ascii"), content)

    def tags(self, repository: Repository) -> list[str] | None:
        """Every tag; `None` when there is no such repository."""
        with suppress(FileNotFoundError):
            return [path.name for path in (self._of(repository) / TAGS).iterdir()]
        return [] if (self._of(repository) / MANIFESTS).is_dir() else None

    def untag(self, repository: Repository, tag: str) -> bool:
        """Remove a tag; whether it was there."""
        with self._locked():
            return _remove(self._of(repository) / TAGS / tag)

    def remove(self, repository: Repository, digest: str) -> bool:
        """Remove a manifest and its tags; whether it was there."""
        folder = self._of(repository)
        with self._locked():
            for path in _entries(folder / TAGS):
                if path.read_text(encoding="ascii") == digest:
                    path.unlink()
            return _remove(folder / MANIFESTS / digest)

    # What clearing needs.

    def unused_since(self, before: float) -> list[tuple[Repository, str]]:
        """Repository and name of every tag that nobody asked for since."""
        return [
            (repository, path.name)
            for repository in self._repositories()
            for path in _entries(self._of(repository) / TAGS)
            if path.stat().st_mtime < before
        ]

    def untag_unused(self, repository: Repository, tag: str, before: float) -> bool:
        """Remove a tag unless somebody asked for it since; whether it is gone."""
        path = self._of(repository) / TAGS / tag
        with self._locked(), suppress(FileNotFoundError):
            return path.stat().st_mtime < before and _remove(path)
        return False

    def sweep(self, before: float, kept: Iterable[tuple[Repository, str]]) -> int:
        """Remove what came before that and nothing refers to; gives the bytes. `kept`: manifests to keep, by digest."""
        wanted: dict[Repository, set[str]] = {}
        for repository, digest in kept:
            wanted.setdefault(repository, set()).add(digest)
        freed, used = 0, dict[str, set[str]]()
        with self._locked():
            for repository in self._repositories():
                blobs, removed = self._sweep_manifests(repository, before, wanted.get(repository, set()))
                used.setdefault(repository.organization_id, set()).update(blobs)
                freed += removed
            for organization in _entries(self._folder):
                for path in _entries(organization / BLOBS):
                    if path.name not in used.get(organization.name, ()):
                        freed += _remove_old(path, before)
        return freed

    def _sweep_manifests(self, repository: Repository, before: float, wanted: set[str]) -> tuple[set[str], int]:
        """The blobs that the manifests of a repository use, once the others are removed, and the bytes of those."""
        folder, blobs, freed = self._of(repository), set[str](), 0
        waiting = wanted | {path.read_text(encoding="ascii") for path in _entries(folder / TAGS)}
        waiting |= {path.name for path in _entries(folder / MANIFESTS) if path.stat().st_mtime >= before}
        reached: set[str] = set()
        while waiting:
            reached |= waiting
            found = [self.manifest(repository, digest) for digest in waiting]
            blobs.update(*(manifest.blobs for manifest in found if manifest))
            waiting = {digest for manifest in found if manifest for digest in manifest.manifests} - reached
        for path in _entries(folder / MANIFESTS):
            if path.name not in reached:
                freed += _remove_old(path, before)
        for emptied in (folder / TAGS, folder / MANIFESTS, folder):
            with suppress(OSError):  # something is in it, or it never was there
                emptied.rmdir()
        return blobs, freed

    def _repositories(self) -> list[Repository]:
        return [
            Repository(organization.name, path.name.replace("+", "/"))
            for organization in _entries(self._folder)
            for path in _entries(organization / REPOSITORIES)
        ]

    def _of(self, repository: Repository) -> Path:
        return self._folder / repository.organization_id / REPOSITORIES / repository.name.replace("/", "+")

    def _uploads(self, organization_id: str) -> Path:
        uploads = self._folder / UPLOADS / organization_id
        uploads.mkdir(parents=True, exist_ok=True)
        return uploads

    def _place(self, path: Path, content: bytes, at: float) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        (self._folder / UPLOADS).mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._folder / UPLOADS, delete=False) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.utime(file.name, (at, at))
        Path(file.name).replace(path)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone among everybody who changes what is there, in every process: nothing goes that was just found."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self._folder / LOCK).open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, but for what is not for others to see; nothing where there is none."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return [path for path in folder.iterdir() if not path.name.startswith(".")]
    return []


def _touch(path: Path, at: float) -> bool:
    """Note that it was asked for; whether it is there."""
    with suppress(FileNotFoundError):
        os.utime(path, (at, at))
        return True
    return False


def _remove(path: Path) -> bool:
    with suppress(FileNotFoundError):
        path.unlink()
        return True
    return False


def _remove_old(path: Path, before: float) -> int:
    with suppress(FileNotFoundError):
        found = path.stat()
        if found.st_mtime < before:
            path.unlink()
            return found.st_size
    return 0


def _size(folder: Path) -> int:
    """Bytes of all files below; those that go meanwhile count or not."""
    size = 0
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                is_folder = entry.is_dir(follow_symlinks=False)
                size += _size(Path(entry.path)) if is_folder else entry.stat(follow_symlinks=False).st_size
    return size
