"""What the engine says of images, as a file of ours and back: each layer once, under its own hash.

    manifest.json          [{"Config": ..., "RepoTags": [...], "Layers": [...]}]
    configs/<number>.json  an image's configuration
    layers/<sha256>.tar    a layer, as the image's configuration names it

All is a tar in gzip. It is the form that every engine loads; what the engines themselves write differs by version.
*Source:* Docker Image Specification v1.2, "Combined Image JSON + Filesystem Changeset Format".
"""

import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from sandyard_runner.errors import RuntimeFailure
from sandyard_runner.runtime.docker.options import LABEL_IMAGE

MANIFEST = "manifest.json"
CHUNK = 1 << 20
COMPRESSION = 1
"""Most of a layer is programs: more of it costs several times the time for a tenth of the size."""


def write(target: Path, saved: Path, names: Mapping[str, str]) -> None:
    """Put what the engine saved into a file of ours, under the names `{name there: name here}`. Blocks.

    Raises `RuntimeFailure` when a layer is not what its image says.
    """
    with (
        tarfile.open(saved) as source,
        tarfile.open(target, "w:gz", compresslevel=COMPRESSION, format=tarfile.PAX_FORMAT) as archive,
    ):
        images, configs, places = list[dict[str, Any]](), list[bytes](), dict[str, str]()
        for entry in json.loads(_member(source, MANIFEST).read()):
            config = _member(source, entry["Config"]).read()
            layers = [_layer_name(hashed) for hashed in json.loads(config)["rootfs"]["diff_ids"]]
            places |= zip(layers, entry["Layers"], strict=True)
            tags = [names.get(tag, tag) for tag in entry["RepoTags"] or []]
            images.append({"Config": f"configs/{len(configs)}.json", "RepoTags": tags, "Layers": layers})
            configs.append(config)
        _add(archive, MANIFEST, json.dumps(images).encode())
        for image, config in zip(images, configs, strict=True):
            _add(archive, str(image["Config"]), config)
        for name, place in places.items():
            _add_layer(archive, name, source, place)


def names(source: Path) -> list[str]:
    """What the images in a file of ours are called. Blocks. Raises `RuntimeFailure`."""
    with _reading(), tarfile.open(source, "r:gz") as archive:
        first = archive.next()
        if first is None or first.name != MANIFEST:
            raise RuntimeFailure("what is kept of containers cannot be read: it has no manifest")
        return [tag for image in json.load(_member(archive, MANIFEST)) for tag in image["RepoTags"]]


def read(source: Path, target: Path, installation: str, *, without: Collection[str] = ()) -> None:
    """Unpack a file of ours into one that the engine loads: its images are labelled as those of `installation`.

    Images whose only names are in `without` are left out. Blocks. Raises `RuntimeFailure`.
    """
    with (
        _reading(),
        tarfile.open(source, "r:gz") as archive,
        tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as whole,
    ):
        for member in archive:
            stream = archive.extractfile(member)
            if stream is None:
                raise RuntimeFailure(f"what is kept of containers cannot be read: {member.name} is no file")
            if member.name.startswith("layers/"):
                whole.addfile(member, stream)
            elif member.name == MANIFEST:
                _add(whole, MANIFEST, json.dumps(_reduced(json.load(stream), without)).encode())
            else:
                _add(whole, member.name, _relabelled(stream.read(), installation))


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, ValueError, KeyError, zlib.error) as error:
        raise RuntimeFailure(f"what is kept of containers cannot be read: {error}") from error


def _reduced(images: Sequence[Mapping[str, Any]], without: Collection[str]) -> list[dict[str, Any]]:
    named = [{**image, "RepoTags": [tag for tag in image["RepoTags"] if tag not in without]} for image in images]
    return [image for image in named if image["RepoTags"]]


def _relabelled(content: bytes, installation: str) -> bytes:
    """The configuration with our label: by it we find our images again, and only ours."""
    config: dict[str, Any] = json.loads(content)
    for part in ("config", "container_config"):
        labels = (config.get(part) or {}).get("Labels") or {}
        if LABEL_IMAGE in labels:
            labels[LABEL_IMAGE] = installation
    return json.dumps(config).encode()


def _layer_name(hashed: str) -> str:
    return f"layers/{hashed.removeprefix('sha256:')}.tar"


def _add_layer(archive: tarfile.TarFile, name: str, source: tarfile.TarFile, place: str) -> None:
    with _member(source, place) as stream:
        digest = hashlib.sha256()
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
        if name != _layer_name(digest.hexdigest()):
            raise RuntimeFailure(f"the engine gave a layer that is not what its image says: {name}")
        member = tarfile.TarInfo(name)
        member.size = stream.tell()
        stream.seek(0)
        archive.addfile(member, stream)


def _member(source: tarfile.TarFile, name: str) -> IO[bytes]:
    """One file; engines keep a layer once and link to it."""
    try:
        stream = source.extractfile(name)
    except KeyError:
        stream = None
    if stream is None:
        raise RuntimeFailure(f"the engine saved images without their {name}")
    return stream


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
