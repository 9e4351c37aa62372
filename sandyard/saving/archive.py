"""The file: a tar of `manifest.json`, `database.jsonl`, `files.tar.gz` and, where sandboxes are in containers,
`containers.tar.gz`; the manifest has the others' SHA-256.

It holds what opens sandboxes (their tokens, unsealed), so only its owner may read it.
"""

import asyncio
import hashlib
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from sandyard import __version__
from sandyard.saving import database, files
from sandyard.saving.containers import Containers
from sandyard.saving.errors import BadArchive, Unreadable
from sandyard_api.database import Database, open_database
from sandyard_api.sandboxes.images import archive_image
from sandyard_api.sealing.service import Seal, check_key
from sandyard_migrations.upgrade import newest_revision, upgrade

FORMAT = 2
MANIFEST, ROWS, FILES, CONTAINERS = "manifest.json", "database.jsonl", "files.tar.gz", "containers.tar.gz"
CHUNK = 1 << 20
MAX_MANIFEST_BYTES = 1 << 20


class Manifest(msgspec.Struct, frozen=True):
    """What is in the file."""

    format: int
    version: str
    schema: str | None
    saved_at: str
    rows: dict[str, int]
    sandboxes: list[str]
    """Local ones, whose folders are in it."""
    hashes: dict[str, str]
    containers: list[str] = msgspec.field(default_factory=list)
    """Sandboxes in containers, whose images are in it."""


class Place(msgspec.Struct, frozen=True):
    """One Sandyard that is not running."""

    data_dir: Path
    database_url: str
    seal: Seal
    containers: Containers | None = None
    """What the engine holds of it; `None` where no engine was asked."""

    @asynccontextmanager
    async def database(self) -> AsyncIterator[Database]:
        """Its database, up to date and sealed with its own key. Raises `WrongKey`."""
        async with open_database(self.database_url) as opened:
            await upgrade(opened.engine)
            await check_key(opened, self.seal)
            yield opened


async def save(target: Path, place: Place, *, may_miss_files: bool = False) -> Manifest:
    """Write everything to `target`, which appears when it is whole. Nobody may be running on the data directory.

    Raises `Unreadable` for sandboxes whose files cannot be found, unless `may_miss_files`, and `RuntimeFailure`.
    """
    with tempfile.TemporaryDirectory(prefix="sandyard-save-", dir=target.parent) as name:
        folder = Path(name)
        async with place.database() as opened, AsyncExitStack() as still:
            if place.containers is not None:
                await still.enter_async_context(place.containers.held_still())
            counts = await database.write(opened, folder / ROWS, place.seal)
            sandboxes = await asyncio.to_thread(files.write, folder / FILES, place.data_dir)
            alive = await database.with_files(opened)
            contained = await _write_containers(folder / CONTAINERS, place.containers, alive)
            missing = sorted(alive - set(sandboxes) - set(contained))
            if missing and not may_miss_files:
                raise Unreadable(
                    f"the files of {len(missing)} sandboxes are neither in {place.data_dir} nor in an engine that"
                    f" answers: {', '.join(missing[:5])}; --without-files saves the rest"
                )
        parts = [path for path in (folder / ROWS, folder / FILES, folder / CONTAINERS) if path.exists()]
        manifest = Manifest(
            FORMAT,
            __version__,
            newest_revision(),
            datetime.now(UTC).isoformat(),
            counts,
            sandboxes,
            {path.name: await asyncio.to_thread(_hash, path) for path in parts},
            contained,
        )
        (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
        whole = folder / "whole"
        await asyncio.to_thread(_assemble, whole, [folder / MANIFEST, *parts])
        whole.replace(target)
    return manifest


async def load(source: Path, place: Place) -> Manifest:
    """Put everything into a data directory and a database that hold no sandbox.

    Raises `BadArchive` and `RuntimeFailure`, and nothing is changed then.
    """
    with tempfile.TemporaryDirectory(prefix="sandyard-load-", dir=place.data_dir) as name:
        folder = Path(name)
        manifest = await asyncio.to_thread(_take_apart, source, folder)
        if CONTAINERS in manifest.hashes and place.containers is None:
            raise BadArchive("the file holds sandboxes or images of containers, and no Docker engine answers here")
        for home in (place.data_dir / one for one in files.HOMES):
            if home.is_dir() and any(home.iterdir()):
                raise BadArchive(f"{home} holds something already; load into an empty --data-dir")
        async with place.database() as opened, AsyncExitStack() as undo:
            if await database.is_used(opened):
                raise BadArchive("the database holds sandboxes already; load into an empty one")
            await asyncio.to_thread(files.read, folder / FILES, folder / "unpacked")
            _move_in(folder / "unpacked", place.data_dir, undo)
            images = {sandbox_id: archive_image(sandbox_id) for sandbox_id in manifest.containers}
            if CONTAINERS in manifest.hashes and place.containers is not None:
                specs = await asyncio.to_thread(database.specs, folder / ROWS, images)
                await place.containers.read(folder / CONTAINERS, specs)
                undo.push_async_callback(place.containers.remove_all)
            await database.read(opened, folder / ROWS, place.seal, images=images)
            undo.pop_all()
    return manifest


def has_containers(source: Path) -> bool:
    """Whether a file holds sandboxes or images that need an engine. Raises `BadArchive`."""
    with _damages(source), tarfile.open(source, mode="r:") as archive:
        return CONTAINERS in _manifest(archive).hashes


async def _write_containers(target: Path, containers: Containers | None, alive: set[str]) -> list[str]:
    """Write what the engine holds of those sandboxes; their ids. Where it holds nothing, there is no file."""
    if containers is None:
        return []
    contained = [sandbox_id for sandbox_id in await containers.present() if sandbox_id in alive]
    await containers.write(target, {sandbox_id: archive_image(sandbox_id) for sandbox_id in contained})
    return contained


def _move_in(unpacked: Path, data_dir: Path, undo: AsyncExitStack) -> None:
    for path in unpacked.iterdir():
        home = data_dir / path.name
        if home.is_dir():
            home.rmdir()
        path.replace(home)
        undo.callback(shutil.rmtree, home)


def _assemble(whole: Path, parts: list[Path]) -> None:
    descriptor = os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w") as archive:
        for part in parts:
            archive.add(part, part.name, filter=_plain)
        file.flush()
        os.fsync(file.fileno())


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o600
    return member


def _take_apart(source: Path, folder: Path) -> Manifest:
    """The parts as files in `folder`, each as the manifest says. Raises `BadArchive`."""
    with _damages(source), tarfile.open(source, mode="r:") as archive:
        manifest = _manifest(archive)
        for name in (ROWS, FILES, *([CONTAINERS] if CONTAINERS in manifest.hashes else [])):
            _extract(archive, name, folder / name, manifest.hashes)
    return manifest


@contextmanager
def _damages(source: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError) as error:
        raise BadArchive(f"{source} was not made by `sandyard save`, or is damaged: {error}") from error


def _manifest(archive: tarfile.TarFile) -> Manifest:
    member = archive.next()
    stream = archive.extractfile(member) if member is not None and member.name == MANIFEST else None
    if stream is None:
        raise BadArchive("the file was not made by `sandyard save`: it has no manifest")
    try:
        told: dict[str, Any] = json.loads(stream.read(MAX_MANIFEST_BYTES))
        if told["format"] != FORMAT:
            raise BadArchive(f"the file has format {told['format']}, this version reads {FORMAT}")
        manifest = msgspec.convert(told, Manifest)
    except (ValueError, KeyError, TypeError) as error:
        raise BadArchive(f"the manifest cannot be read: {error}") from error
    if manifest.schema != newest_revision():
        raise BadArchive(
            f"the file has schema {manifest.schema} (of Sandyard {manifest.version}), this version has"
            f" {newest_revision()}: load it with that version, upgrade, and save again"
        )
    return manifest


def _extract(archive: tarfile.TarFile, name: str, target: Path, hashes: Mapping[str, str]) -> None:
    try:
        stream = archive.extractfile(name)
    except KeyError:
        stream = None
    if stream is None:
        raise BadArchive(f"the file is damaged: it has no {name}")
    with closing(stream), target.open("wb") as file:
        while chunk := stream.read(CHUNK):
            file.write(chunk)
    if _hash(target) != hashes.get(name):
        raise BadArchive(f"the file is damaged: {name} is not what was saved")


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
