"""Which image a request means: references, Dockerfiles, and the vendor's images, for which ours stand in."""

import hashlib
import re

import msgspec

from sandyard_api.database import UNSTORABLE
from sandyard_api.errors import BadRequest
from sandyard_api.jobs.wire import BUILD_REPOSITORY, DEFAULT_IMAGE_NAMES
from sandyard_api.validation import Fields

SNAPSHOT_ALIASES = {
    "daytona-small": "sandyard-default",
    "daytona-medium": "sandyard-medium",
    "daytona-large": "sandyard-large",
}
"""The vendor's general snapshots that programs ask for by name, and ours of the same size."""
DEFAULT_IMAGE_TITLE = "sandyard/sandbox:default"
"""What clients are told where the runtime's default image is meant."""
VENDOR = re.compile(r"(?:docker\.io/|registry-1\.docker\.io/)?daytonaio/.+")
REFERENCE = re.compile(
    r"(?:[a-zA-Z0-9][a-zA-Z0-9.-]*(?::\d+)?/)?[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*"
    r"(?::[\w][\w.-]{0,127})?(?:@sha256:[a-f0-9]{64})?"
)
"""An image reference. *Source:* the grammar of the distribution project's reference package."""
FROM_LINE = re.compile(r"FROM\s+(?:--platform=\S+\s+)?(?P<image>[^\s]+)(?:\s+AS\s+\S+)?", re.IGNORECASE)
FROM_ANYWHERE = re.compile(r"^[^\S\n]*FROM[^\S\n]+\S+", re.IGNORECASE | re.MULTILINE)
MAX_DOCKERFILE_CHARACTERS = 1 << 20
MAX_CONTEXTS = 1000
CONTEXT_HASH = re.compile(r"[0-9A-Za-z_-]{1,128}")


class BuildRequest(msgspec.Struct, frozen=True):
    """`buildInfo` of a request."""

    dockerfile: str
    context_hashes: tuple[str, ...] = ()

    def image(self, organization_id: str) -> str | None:
        """What the runtime is asked for: the image itself where the file is one `FROM` line, else the build's own name.

        The name of a build is its content, so that equal builds are one. Raises `BadRequest`.
        """
        plain = plain_image(self.dockerfile) if not self.context_hashes else None
        if plain is not None:
            return our_image(plain)
        content = "\n".join([organization_id, self.dockerfile, *sorted(self.context_hashes)])
        return f"{BUILD_REPOSITORY}:{hashlib.sha256(content.encode()).hexdigest()[:40]}"

    def first_words(self) -> str:
        """The first line of its log."""
        plain = plain_image(self.dockerfile) if not self.context_hashes else None
        return f"Preparing image {plain}\n" if plain else "Preparing the build\n"


def read_build(fields: Fields) -> BuildRequest | None:
    """`buildInfo` of a body, complaints about it left in `fields`; `None` where there is none or it is unreadable."""
    build = fields.raw("buildInfo")
    if build is None:
        return None
    if not isinstance(build, dict) or not isinstance(build.get("dockerfileContent"), str):
        fields.complain("buildInfo.dockerfileContent must be a string")
        return None
    dockerfile = build["dockerfileContent"]
    if UNSTORABLE.search(dockerfile):
        fields.complain("buildInfo.dockerfileContent must not contain NUL characters")
    if len(dockerfile) > MAX_DOCKERFILE_CHARACTERS:
        fields.complain(f"buildInfo.dockerfileContent must not be longer than {MAX_DOCKERFILE_CHARACTERS} characters")
    hashes = build.get("contextHashes") or []
    if not isinstance(hashes, list) or not all(isinstance(value, str) for value in hashes):
        fields.complain("each value in buildInfo.contextHashes must be a string")
        hashes = []
    if len(hashes) > MAX_CONTEXTS:
        fields.complain(f"buildInfo.contextHashes must contain no more than {MAX_CONTEXTS} elements")
    return BuildRequest(dockerfile, tuple(hashes[:MAX_CONTEXTS]))


def check_dockerfile(dockerfile: str) -> None:
    """Raise `BadRequest` for a Dockerfile that no builder could begin with."""
    lines = _instructions(dockerfile)
    if not lines:
        raise BadRequest("buildInfo.dockerfileContent must not be empty")
    if not FROM_ANYWHERE.search(dockerfile):
        raise BadRequest(f"buildInfo.dockerfileContent must start with FROM and an image, not {lines[0][:100]!r}")
    if lines[0].split()[0].upper() not in ("FROM", "ARG"):
        raise BadRequest(f"buildInfo.dockerfileContent must start with FROM and an image, not {lines[0][:100]!r}")


def plain_image(dockerfile: str) -> str | None:
    """The image of a Dockerfile that says nothing but `FROM image`; `None` for one that has to be built."""
    lines = _instructions(dockerfile)
    match = FROM_LINE.fullmatch(lines[0]) if len(lines) == 1 else None
    return match["image"] if match is not None and REFERENCE.fullmatch(match["image"]) else None


def our_image(image: str) -> str | None:
    """What is asked for when `image` is: ours for the vendor's default one (`None`), the image itself otherwise.

    Raises `BadRequest` for the vendor's other images, which nothing of ours can stand in for.
    """
    repository = image.partition("@")[0]
    head, _, last = repository.rpartition("/")
    repository = f"{head}/{last.partition(':')[0]}" if head else last.partition(":")[0]
    if repository in DEFAULT_IMAGE_NAMES:
        return None
    if VENDOR.fullmatch(repository):
        raise BadRequest(f"Image {image} is part of the hosted platform and cannot be used here; name another image")
    return image


def check_image_name(image: str) -> None:
    """Raise `BadRequest` unless a snapshot may be made from this reference. The messages are the platform's."""
    last = image.rpartition("/")[2]
    if "@sha256:" not in image and ":" not in last:
        raise BadRequest("Image name must include a tag (e.g., ubuntu:22.04) or digest (@sha256:...)")
    if last.endswith(":latest"):
        raise BadRequest('Images with tag ":latest" are not allowed')
    if not REFERENCE.fullmatch(image):
        raise BadRequest(f"Image name {image[:200]!r} is not an image reference")


def _instructions(dockerfile: str) -> list[str]:
    lines = [line.strip() for line in dockerfile.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]
