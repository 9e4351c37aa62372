"""The file: a tar of `manifest.json`, `database.jsonl` and `files.tar.gz`; the manifest has the others' SHA-256.

It holds what opens sandboxes (their tokens, unsealed), so only its owner may read it.
"""

import asyncio
import hashlib
import json
import os
import tarfile
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sandyard import __version__
from sandyard.saving import database, files
from sandyard.saving.errors import BadArchive
from sandyard_api.database import open_database
from sandyard_api.sealing.service import Seal, check_key
from sandyard_migrations.upgrade import newest_revision, upgrade

FORMAT = 1
MANIFEST, ROWS, FILES = "manifest.json", "database.jsonl", "files.tar.gz"
CHUNK = 1 << 20
MAX_MANIFEST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is in the file."""

    format: int
    version: str
    schema: str | None
    saved_at: str
    rows: dict[str, int]
    sandboxes: list[str]
    """Those whose file systems are in it."""
    hashes: dict[str, str]


async def save(target: Path, *, data_dir: Path, database_url: str, seal: Seal) -> Manifest:
    """Write everything to `target`, which appears when it is whole. Nobody may be running on the data directory."""
    with tempfile.TemporaryDirectory(prefix="sandyard-save-", dir=target.parent) as folder:
        rows, tree = Path(folder) / ROWS, Path(folder) / FILES
        async with open_database(database_url) as opened:
            await upgrade(opened.engine)
            await check_key(opened, seal)
            counts = await database.write(opened, rows, seal)
        sandboxes = await asyncio.to_thread(files.write, tree, data_dir / "sandboxes")
        manifest = Manifest(
            FORMAT,
            __version__,
            newest_revision(),
            datetime.now(UTC).isoformat(),
            counts,
            sandboxes,
            {path.name: await asyncio.to_thread(_hash, path) for path in (rows, tree)},
        )
        (Path(folder) / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2), encoding="utf-8")
        whole = Path(folder) / "whole"
        await asyncio.to_thread(_assemble, whole, [Path(folder) / MANIFEST, rows, tree])
        whole.replace(target)
    return manifest


async def load(source: Path, *, data_dir: Path, database_url: str, seal: Seal) -> Manifest:
    """Put everything into a data directory and a database that hold no sandbox. Raises `BadArchive`, and nothing is
    changed then."""
    with tempfile.TemporaryDirectory(prefix="sandyard-load-", dir=data_dir) as folder:
        manifest = await asyncio.to_thread(_take_apart, source, Path(folder))
        home = data_dir / "sandboxes"
        if home.is_dir() and any(home.iterdir()):
            raise BadArchive(f"{home} holds sandboxes already; load into an empty --data-dir")
        async with open_database(database_url) as opened:
            await upgrade(opened.engine)
            await check_key(opened, seal)
            if await database.is_used(opened):
                raise BadArchive("the database holds sandboxes already; load into an empty one")
            staged = Path(folder) / "sandboxes"
            await asyncio.to_thread(files.read, Path(folder) / FILES, staged)
            await database.read(opened, Path(folder) / ROWS, seal)
        if home.is_dir():
            home.rmdir()
        staged.replace(home)
    return manifest


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
    try:
        with tarfile.open(source, mode="r:") as archive:
            manifest = _manifest(archive)
            for name in (ROWS, FILES):
                _extract(archive, name, folder / name, manifest.hashes)
    except (tarfile.TarError, EOFError) as error:
        raise BadArchive(f"{source} was not made by `sandyard save`, or is damaged: {error}") from error
    return manifest


def _manifest(archive: tarfile.TarFile) -> Manifest:
    member = archive.next()
    stream = archive.extractfile(member) if member is not None and member.name == MANIFEST else None
    if stream is None:
        raise BadArchive("the file was not made by `sandyard save`: it has no manifest")
    try:
        told: dict[str, Any] = json.loads(stream.read(MAX_MANIFEST_BYTES))
        if told["format"] != FORMAT:
            raise BadArchive(f"the file has format {told['format']}, this version reads {FORMAT}")
        manifest = Manifest(**told)
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
