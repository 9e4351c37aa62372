"""Manifests as clients put them: their types, and what they refer to."""

import hashlib
from collections.abc import Sequence

import msgspec

from sandyard_api.image_registry.names import DIGEST

IMAGES = frozenset(
    {"application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"}
)
INDEXES = frozenset(
    {"application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"}
)
SCHEMA_VERSION = 2


class InvalidManifest(ValueError):
    """What was put is no manifest of the type that it came as."""


class Manifest(msgspec.Struct, frozen=True):
    """A manifest of an image or an index of several, byte for byte."""

    media_type: str
    content: bytes
    digest: str
    """SHA-256 of the content, 64 hexadecimal digits."""
    blobs: Sequence[str]
    """Digests of the configuration and the layers, likewise."""
    manifests: Sequence[str]
    """Digests of the manifests in an index, likewise."""


class _Descriptor(msgspec.Struct):
    digest: str


class _Document(msgspec.Struct, rename="camel"):
    schema_version: int
    media_type: str | None = None
    config: _Descriptor | None = None
    layers: list[_Descriptor] | None = None
    manifests: list[_Descriptor] | None = None


def read_manifest(media_type: str, content: bytes) -> Manifest:
    """Raises `InvalidManifest`."""
    if media_type not in IMAGES | INDEXES:
        raise InvalidManifest(f"manifests of type {media_type[:100]!r} are not taken; OCI's and Docker's version 2 are")
    try:
        told = msgspec.json.decode(content, type=_Document)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InvalidManifest(f"the manifest cannot be read: {error}") from error
    if told.schema_version != SCHEMA_VERSION or told.media_type not in (None, media_type):
        raise InvalidManifest(f"the manifest is not of the type that it came as, {media_type}")
    blobs: list[str] = []
    manifests: list[str] = []
    if media_type in INDEXES:
        manifests = _digests(told.manifests)
    else:
        blobs = _digests([told.config] if told.config else None) + _digests(told.layers)
    return Manifest(media_type, content, hashlib.sha256(content).hexdigest(), blobs, manifests)


def _digests(descriptors: Sequence[_Descriptor] | None) -> list[str]:
    if descriptors is None:
        raise InvalidManifest("the manifest has no list of what it consists of")
    matches = [DIGEST.fullmatch(descriptor.digest) for descriptor in descriptors]
    if not all(matches):
        raise InvalidManifest("the manifest has a digest that is not sha256 and 64 hexadecimal digits")
    return [match["hex"] for match in matches if match]
