"""Requests to the registry: which of its things they are about, who asks, and their bodies."""

import base64
import binascii
import re
from collections.abc import AsyncIterator, Mapping
from enum import Enum
from urllib.parse import parse_qs, unquote

import msgspec

from sandyard_api.asgi import Receive, Scope, Send, body_of
from sandyard_api.image_registry.answers import RegistryError
from sandyard_api.image_registry.names import DIGEST, MAX_NAME_LENGTH, TAG, Repository, parse_repository

ROOT = "/v2"
UPLOAD_ID = re.compile(r"[0-9a-z]{1,64}")
CONTENT_RANGE = re.compile(r"(?:bytes[ =])?(?P<first>\d{1,18})-(?P<last>\d{1,18})(?:/(?:\d+|\*))?")
"""*Source:* `<first>-<last>` is the OCI distribution specification's; HTTP has more around it (RFC 9110, 14.4)."""
RANGE = re.compile(r"bytes=(?P<first>\d{0,18})-(?P<last>\d{0,18})")


class Kind(Enum):
    """What a path is of."""

    BASE = "base"
    BLOB = "blob"
    UPLOADS = "uploads"
    UPLOAD = "upload"
    MANIFEST = "manifest"
    TAGS = "tags"
    OTHER = "other"  # part of the specification, not of this registry


PATHS: Mapping[Kind, re.Pattern[str]] = {
    Kind.BASE: re.compile(rf"{ROOT}/?"),
    # Before blobs: "uploads" is no digest.
    Kind.UPLOADS: re.compile(rf"{ROOT}/(?P<name>.+)/blobs/uploads/?"),
    Kind.UPLOAD: re.compile(rf"{ROOT}/(?P<name>.+)/blobs/uploads/(?P<item>[^/]+)"),
    Kind.BLOB: re.compile(rf"{ROOT}/(?P<name>.+)/blobs/(?P<item>[^/]+)"),
    Kind.MANIFEST: re.compile(rf"{ROOT}/(?P<name>.+)/manifests/(?P<item>[^/]+)"),
    Kind.TAGS: re.compile(rf"{ROOT}/(?P<name>.+)/tags/list"),
    Kind.OTHER: re.compile(rf"{ROOT}/(?:_catalog|.+/referrers/[^/]+)"),
}


class Target(msgspec.Struct, frozen=True):
    """What a path names."""

    kind: Kind
    name: str = ""
    item: str = ""

    @property
    def repository(self) -> Repository:
        """Raises `RegistryError`."""
        found = parse_repository(self.name)
        if found is None:
            shape = f"repositories are <organization id>/<name>, in lower case, of at most {MAX_NAME_LENGTH} characters"
            raise RegistryError("NAME_INVALID", shape)
        return found

    @property
    def digest(self) -> str:
        """Without `sha256:`. Raises `RegistryError`."""
        return parse_digest(self.item)

    @property
    def tag(self) -> str | None:
        """The tag of a manifest's path; `None` for a digest. Raises `RegistryError`."""
        if ":" in self.item:
            return None
        if not TAG.fullmatch(self.item):
            raise RegistryError("MANIFEST_INVALID", f"{self.item[:128]!r} is neither a tag nor a digest")
        return self.item

    @property
    def upload_id(self) -> str:
        """Raises `RegistryError`."""
        if not UPLOAD_ID.fullmatch(self.item):
            raise no_such_upload()
        return self.item


class Call(msgspec.Struct, frozen=True):
    """One request of somebody who may make it."""

    scope: Scope
    receive: Receive
    send: Send
    target: Target
    repository: Repository
    headers: Mapping[str, str]
    """Names in lower case."""
    query: Mapping[str, list[str]]

    @property
    def method(self) -> str:
        """In capitals."""
        method: str = self.scope["method"]
        return method

    def argument(self, name: str) -> str:
        """The last value in the query; empty where there is none."""
        return self.query.get(name, [""])[-1]

    def body(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises `ClientGone`."""
        return body_of(self.receive)


def find_target(path: str) -> Target | None:
    """What a path, still encoded, names here; `None` where it is not the registry's."""
    plain = unquote(path)
    for kind, pattern in PATHS.items():
        if match := pattern.fullmatch(plain):
            return Target(kind, **match.groupdict())
    return None


def parse_digest(text: str) -> str:
    """A digest without its `sha256:`. Raises `RegistryError`."""
    match = DIGEST.fullmatch(text)
    if match is None:
        raise RegistryError("DIGEST_INVALID", "digests are sha256: and 64 hexadecimal digits in lower case")
    return match["hex"]


def no_such_upload() -> RegistryError:
    """The answer for an upload that is not there, or not for these credentials."""
    return RegistryError("BLOB_UPLOAD_UNKNOWN", "there is no such upload; begin another one")


def query_of(scope: Scope) -> dict[str, list[str]]:
    """Raises `RegistryError`."""
    try:
        return parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True, max_num_fields=100)
    except ValueError as error:
        raise RegistryError("UNSUPPORTED", "the query cannot be read", status=400) from error


def basic_credentials(authorization: str) -> tuple[str, str] | None:
    """User name and password of a header. *Source:* RFC 7617."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        username, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeError):
        return None
    return (username, password) if colon else None


def wanted_range(header: str, size: int) -> range | None:
    """The bytes of a whole of `size` that a Range header asks for; `None`: all of it. Raises `RegistryError`.

    Several ranges at once get the whole, which HTTP allows (RFC 9110, 14.2).
    """
    match = RANGE.fullmatch(header.strip())
    if match is None or not (match["first"] or match["last"]):
        return None
    if match["first"]:
        first = int(match["first"])
        last = min(int(match["last"]), size - 1) if match["last"] else size - 1
        if match["last"] and int(match["last"]) < first:
            return None
    else:
        first, last = max(0, size - int(match["last"])), size - 1
    if first > last:
        fields = [(b"content-range", b"bytes */%d" % size)]
        raise RegistryError("SIZE_INVALID", f"the blob has {size} bytes", status=416, headers=fields)
    return range(first, last + 1)
