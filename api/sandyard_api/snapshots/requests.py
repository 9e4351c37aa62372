"""What requests about snapshots may say: read, checked, and made into plain values. The messages are the platform's."""

import re

import msgspec

from sandyard_api.errors import BadRequest, NotFound
from sandyard_api.sandboxes.gpus import read_gpu, refuse_gpu
from sandyard_api.snapshots.images import (
    BuildRequest,
    check_dockerfile,
    check_image_name,
    our_image,
    read_build,
)
from sandyard_api.validation import Fields

NAME = re.compile(r"[a-zA-Z0-9_.\-:]+(?:/[a-zA-Z0-9_.\-:]+)*(?:@sha256:[a-fA-F0-9]{64})?")
MAX_NAME_LENGTH = 512
DEFAULT_CPU, DEFAULT_MEMORY_GIB, DEFAULT_DISK_GIB = 1, 1, 3
CONTAINER = "container"
CLASSES = (CONTAINER, "linux-vm", "windows", "android")


class NewSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot to be made from an image or a build."""

    name: str
    image_name: str | None = None
    build: BuildRequest | None = None
    entrypoint: list[str] | None = None
    cpu: int = DEFAULT_CPU
    memory_gib: int = DEFAULT_MEMORY_GIB
    disk_gib: int = DEFAULT_DISK_GIB

    def image(self, organization_id: str) -> str | None:
        """What the runtime is asked for. Raises `BadRequest`."""
        if self.build is not None:
            return self.build.image(organization_id)
        return our_image(self.image_name or "")


def read_new_snapshot(body: object, *, region: str) -> NewSnapshot:
    """The body of a create request. Raises `BadRequest` and `NotFound`."""
    fields = Fields(body)
    name, image = fields.name("name"), fields.string("imageName")
    build, entrypoint = read_build(fields), _entrypoint(fields)
    cpu, memory = fields.integer("cpu", minimum=0), fields.integer("memory", minimum=0)
    disk, gpu = fields.integer("disk", minimum=0), read_gpu(fields)
    target, kind = fields.string("regionId"), fields.string("sandboxClass")
    if name is None and fields.raw("name") is None:
        fields.complain("name must be a string")
    fields.check()
    _check_source(image, build, entrypoint)
    check_name(name or "")
    if build is not None:
        check_dockerfile(build.dockerfile)
    else:
        check_image_name(image or "")
    _check_place(target, kind, region)
    refuse_gpu(gpu)
    return NewSnapshot(
        name=name or "",
        image_name=None if build else image,
        build=build,
        entrypoint=entrypoint,
        cpu=cpu or DEFAULT_CPU,
        memory_gib=memory or DEFAULT_MEMORY_GIB,
        disk_gib=disk or DEFAULT_DISK_GIB,
    )


def check_name(name: str) -> None:
    """Raise `BadRequest` for what cannot be a snapshot's name."""
    if not NAME.fullmatch(name) or len(name) > MAX_NAME_LENGTH:
        raise BadRequest("Invalid snapshot name format. May contain letters, digits, dots, colons, and dashes")


def _check_source(image: str | None, build: BuildRequest | None, entrypoint: list[str] | None) -> None:
    if build is not None and image:
        raise BadRequest("Cannot specify an image name when using a build info entry")
    if build is not None and entrypoint:
        raise BadRequest("Cannot specify an entrypoint when using a build info entry")
    if build is None and not image:
        raise BadRequest("Must specify an image name when not using a build info entry")


def _check_place(target: str | None, kind: str | None, region: str) -> None:
    if target and target != region:
        raise NotFound("Region not found")
    if kind and kind not in CLASSES:
        raise BadRequest(f"sandboxClass must be one of the following values: {', '.join(CLASSES)}")
    if kind and kind != CONTAINER:
        raise BadRequest(
            f"No runners are configured in region '{region}' for sandbox class '{kind}'. "
            "Try a different region or sandbox class."
        )


def _entrypoint(fields: Fields) -> list[str] | None:
    words = fields.list("entrypoint")
    if not all(isinstance(word, str) and "\x00" not in word for word in words):
        fields.complain("each value in entrypoint must be a string")
        return None
    return words or None
