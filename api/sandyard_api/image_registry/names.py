"""Names in our own registry: repositories, tags and digests as clients may write them, and references to images."""

import re
from collections.abc import Iterable

import msgspec

MAX_NAME_LENGTH = 255
COMPONENT = r"[a-z0-9]+(?:(?:\.|__|_|-+)[a-z0-9]+)*"
NAME = re.compile(rf"(?P<organization>{COMPONENT})/(?P<repository>{COMPONENT}(?:/{COMPONENT})*)")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
DIGEST = re.compile(r"sha256:(?P<hex>[0-9a-f]{64})")
"""*Source:* the OCI distribution specification, "Pulling manifests", and the image specification, "Digests"."""
REFERENCE = re.compile(
    rf"(?<![\w.:/-])(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*(?::\d+)?)/(?P<name>{COMPONENT}(?:/{COMPONENT})+)"
    rf"(?::(?P<tag>{TAG.pattern}))?(?:@sha256:(?P<digest>[0-9a-f]{{64}}))?"
)
DEFAULT_TAG = "latest"


class Repository(msgspec.Struct, frozen=True):
    """One organization's images of one name. Both parts fit the grammar, so that they can be parts of a path."""

    organization_id: str
    name: str
    """Without the organization; may have slashes."""

    @property
    def path(self) -> str:
        """As in URLs and references."""
        return f"{self.organization_id}/{self.name}"


class Reference(msgspec.Struct, frozen=True):
    """An image by registry, repository and tag or digest."""

    host: str
    """With the port, where there is one."""
    repository: Repository
    tag: str | None
    """`None` where a digest alone says which one is meant."""
    digest: str | None
    """64 hexadecimal digits."""


def parse_repository(text: str) -> Repository | None:
    """The repository of that name; `None` for what is none, or is not below an organization."""
    match = NAME.fullmatch(text) if len(text) <= MAX_NAME_LENGTH else None
    return None if match is None else Repository(match["organization"], match["repository"])


def references(text: str) -> Iterable[Reference]:
    """Every reference in an image's name or in a Dockerfile that may be to an organization's repository."""
    for match in REFERENCE.finditer(text):
        repository = parse_repository(match["name"])
        if repository is not None:
            tag = match["tag"] or (None if match["digest"] else DEFAULT_TAG)
            yield Reference(match["host"], repository, tag, match["digest"])
