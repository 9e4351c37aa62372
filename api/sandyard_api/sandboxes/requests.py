"""What a create request may say: read, checked, and made into plain values. The messages are the platform's."""

import re
from dataclasses import dataclass

from sandyard_api.database import UNSTORABLE
from sandyard_api.errors import BadRequest, NotFound, NotImplementedHere
from sandyard_api.validation import Fields

DEFAULT_AUTO_STOP_MINUTES = 15
DEFAULT_AUTO_ARCHIVE_MINUTES = 10_080
MAX_AUTO_ARCHIVE_MINUTES = 43_200
AUTO_DELETE_OFF = -1
EXCLUSIVE = "At most one of autoStopInterval and autoPauseInterval may be non-zero"
EPHEMERAL_PAUSE = "autoPauseInterval is not allowed for ephemeral sandboxes"
FROM_LINE = re.compile(r"FROM\s+(?:--platform=\S+\s+)?(?P<image>[^\s]+)(?:\s+AS\s+\S+)?", re.IGNORECASE)

NOT_YET = {
    "volumes": "Volumes",
    "secrets": "Secrets",
    "linkedSandbox": "Linked sandboxes",
    "networkAllowList": "Network allow lists",
    "domainAllowList": "Domain allow lists",
    "outboundProxyUrl": "Outbound proxies",
    "gpu": "GPUs",
    "gpuType": "GPUs",
    "kvm": "KVM",
    "spot": "Spot sandboxes",
}
"""Fields that ask for something this version cannot do; refused, never silently dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSandbox:
    """A sandbox to be made."""

    name: str | None
    snapshot: str | None
    dockerfile: str | None
    image: str | None
    user: str | None
    env: dict[str, str]
    labels: dict[str, str]
    public: bool
    network_block_all: bool
    cpu: int
    memory_gib: int
    disk_gib: int
    auto_stop_minutes: int
    auto_pause_minutes: int
    auto_archive_minutes: int
    auto_delete_minutes: int
    ttl_minutes: int | None


def read_create(body: object, *, default_snapshot: str, region: str) -> NewSandbox:
    """The body of a create request. Raises `BadRequest`, `NotFound` and `NotImplementedHere`."""
    fields = Fields(body)
    resources = {name: fields.integer(name, minimum=0) for name in ("cpu", "gpu", "memory", "disk")}
    name, snapshot = fields.name("name"), fields.string("snapshot")
    target, user = fields.string("target"), fields.string("user")
    env, labels = fields.strings("env"), fields.strings("labels")
    public, block_all = fields.boolean("public"), fields.boolean("networkBlockAll")
    stop, archive = fields.integer("autoStopInterval"), fields.integer("autoArchiveInterval")
    pause = fields.integer("autoPauseInterval")
    delete, ttl = fields.integer("autoDeleteInterval"), fields.integer("ttlMinutes", minimum=0)
    dockerfile, hashes = _read_build(fields)
    fields.check()
    _check_source(snapshot, dockerfile, resources)
    _check_target(target, region)
    if dockerfile is None and snapshot and snapshot != default_snapshot:
        raise BadRequest(f"Snapshot {snapshot} not found. Did you add it through the Daytona Dashboard?")
    check_interval("Auto-stop", stop)
    check_interval("Auto-archive", archive)
    check_interval("Auto-pause", pause)
    _check_pause(stop, pause, delete)
    _refuse_what_is_missing(fields)
    return NewSandbox(
        name=name or None,
        snapshot=None if dockerfile else default_snapshot,
        dockerfile=dockerfile,
        image=image_of(dockerfile, hashes) if dockerfile else None,
        user=user or None,
        env=env,
        labels=labels,
        public=public,
        network_block_all=block_all,
        cpu=resources["cpu"] or 1,
        memory_gib=resources["memory"] or 1,
        disk_gib=resources["disk"] or 3,
        auto_stop_minutes=(0 if pause else DEFAULT_AUTO_STOP_MINUTES) if stop is None else stop,
        auto_pause_minutes=pause or 0,
        auto_archive_minutes=archive_minutes(archive),
        auto_delete_minutes=AUTO_DELETE_OFF if delete is None else max(delete, AUTO_DELETE_OFF),
        ttl_minutes=ttl or None,
    )


def check_interval(title: str, minutes: int | None) -> None:
    """Raise `BadRequest` for a negative interval."""
    if minutes is not None and minutes < 0:
        raise BadRequest(f"{title} interval must be non-negative")


def _check_pause(stop: int | None, pause: int | None, delete: int | None) -> None:
    if pause and stop:
        raise BadRequest(EXCLUSIVE)
    if pause and delete == 0:
        raise BadRequest(EPHEMERAL_PAUSE)


def archive_minutes(minutes: int | None) -> int:
    """The interval that is stored: 0 and too much both mean the maximum."""
    if minutes is None:
        return DEFAULT_AUTO_ARCHIVE_MINUTES
    return MAX_AUTO_ARCHIVE_MINUTES if minutes == 0 else min(minutes, MAX_AUTO_ARCHIVE_MINUTES)


def image_of(dockerfile: str, context_hashes: list[str]) -> str:
    """The image of a Dockerfile that is one `FROM` line. Raises `BadRequest` and `NotImplementedHere`."""
    lines = [line.strip() for line in dockerfile.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise BadRequest("buildInfo.dockerfileContent must not be empty")
    match = FROM_LINE.fullmatch(lines[0])
    if match is None or "$" in match["image"]:
        raise BadRequest(f"buildInfo.dockerfileContent must start with FROM and an image, not {lines[0][:100]!r}")
    if len(lines) > 1 or context_hashes:
        raise NotImplementedHere(
            "Declarative builds are not supported yet: buildInfo takes a single `FROM image` line. "
            f"The next line is {lines[1][:100]!r}"
            if len(lines) > 1
            else "Build contexts are not supported yet: buildInfo takes a single `FROM image` line."
        )
    return match["image"]


def _read_build(fields: Fields) -> tuple[str | None, list[str]]:
    build = fields.raw("buildInfo")
    if build is None:
        return None, []
    if not isinstance(build, dict) or not isinstance(build.get("dockerfileContent"), str):
        fields.complain("buildInfo.dockerfileContent must be a string")
        return None, []
    if UNSTORABLE.search(build["dockerfileContent"]):
        fields.complain("buildInfo.dockerfileContent must not contain NUL characters")
    hashes = build.get("contextHashes") or []
    if not isinstance(hashes, list) or not all(isinstance(value, str) for value in hashes):
        fields.complain("each value in buildInfo.contextHashes must be a string")
    return build["dockerfileContent"], hashes


def _check_source(snapshot: str | None, dockerfile: str | None, resources: dict[str, int | None]) -> None:
    if dockerfile is not None and snapshot:
        raise BadRequest("Cannot specify a snapshot when using a build info entry")
    if dockerfile is None and any(resources.values()):
        raise BadRequest("Cannot specify Sandbox resources when using a snapshot")


def _check_target(target: str | None, region: str) -> None:
    if target and target != region:
        raise NotFound("Region not found")


def _refuse_what_is_missing(fields: Fields) -> None:
    for name, title in NOT_YET.items():
        if fields.raw(name):
            raise NotImplementedHere(f"{title} are not supported yet ({name})")
