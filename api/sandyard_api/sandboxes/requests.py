"""What a create request may say: read, checked, and made into plain values. The messages are the platform's."""

import re
from typing import Any

import msgspec

from sandyard_api.errors import BadRequest, NotFound, NotImplementedHere
from sandyard_api.sandboxes import linking
from sandyard_api.sandboxes.gpus import FROM_SNAPSHOT, NOT_EPHEMERAL, read_gpu, refuse_gpu
from sandyard_api.sandboxes.network_requests import NetworkWish, read_outbound_proxy
from sandyard_api.sandboxes.schemas import OTEL_ENDPOINT
from sandyard_api.secrets.requests import read_mounts as read_secrets
from sandyard_api.snapshots.images import BuildRequest, check_dockerfile, read_build
from sandyard_api.validation import Fields
from sandyard_api.volumes.requests import WantedMount, read_mounts

DEFAULT_AUTO_STOP_MINUTES = 15
DEFAULT_AUTO_ARCHIVE_MINUTES = 10_080
MAX_AUTO_ARCHIVE_MINUTES = 43_200
AUTO_DELETE_OFF = -1
EXCLUSIVE = "At most one of autoStopInterval and autoPauseInterval may be non-zero"
EPHEMERAL_PAUSE = "autoPauseInterval is not allowed for ephemeral sandboxes"

NOT_YET = {
    "kvm": "KVM",
    "spot": "Spot sandboxes",
}
"""Fields that ask for something this version cannot do; refused, never silently dropped."""


_URL = re.compile(r"https?://[^\s/?#]+(/[^\s?#]*)?")
"""Of a collector: OTLP adds its own paths behind it."""


class NewSandbox(msgspec.Struct, frozen=True, kw_only=True):
    """A sandbox to be made."""

    name: str | None
    snapshot: str | None
    """Name or id; `None` with a build."""
    build: BuildRequest | None
    user: str | None
    env: dict[str, str]
    labels: dict[str, str]
    public: bool
    mounts: tuple[WantedMount, ...]
    network: NetworkWish
    secrets: dict[str, str]
    """Names of variables to names of secrets."""
    outbound_proxy: str | None
    """Its whole URL."""
    cpu: int
    memory_gib: int
    disk_gib: int
    auto_stop_minutes: int
    auto_pause_minutes: int
    auto_archive_minutes: int
    auto_delete_minutes: int
    ttl_minutes: int | None
    linked: str | None = None
    """Id or name of the sandbox that it is to be a companion of."""


def read_create(body: object, *, default_snapshot: str, region: str) -> NewSandbox:
    """The body of a create request. Raises `BadRequest`, `NotFound` and `NotImplementedHere`."""
    fields = Fields(body)
    resources = {name: fields.integer(name, minimum=0) for name in ("cpu", "memory", "disk")}
    gpu, linked = read_gpu(fields), fields.string("linkedSandbox") or None
    name, snapshot = fields.name("name"), fields.string("snapshot")
    target, user = fields.string("target"), fields.string("user")
    env, labels = fields.strings("env") | _telemetry(fields), fields.strings("labels")
    public, secrets = fields.boolean("public"), read_secrets(fields)
    stop, archive = fields.integer("autoStopInterval"), fields.integer("autoArchiveInterval")
    pause = fields.integer("autoPauseInterval")
    delete, ttl = fields.integer("autoDeleteInterval"), fields.integer("ttlMinutes", minimum=0)
    mounts, build = read_mounts(fields), read_build(fields)
    outbound_proxy = fields.string("outboundProxyUrl")
    fields.check()
    network = NetworkWish.read(fields)
    _check_source(snapshot, build, resources | {"gpu": fields.raw("gpu")}, linked)
    if build is None and gpu is not None:
        raise BadRequest(FROM_SNAPSHOT)
    _check_target(target, region)
    check_interval("Auto-stop", stop)
    check_interval("Auto-archive", archive)
    check_interval("Auto-pause", pause)
    _check_pause(stop, pause, delete)
    if gpu is not None and delete != 0:
        raise BadRequest(NOT_EPHEMERAL)
    refuse_gpu(gpu)
    if linked is not None and delete != 0:
        raise BadRequest(linking.NOT_EPHEMERAL)
    _refuse_what_is_missing(fields)
    return NewSandbox(
        name=name or None,
        snapshot=None if build else snapshot or default_snapshot,
        build=build,
        user=user or None,
        env=env,
        labels=labels,
        public=public,
        mounts=mounts,
        network=network,
        secrets=secrets,
        outbound_proxy=read_outbound_proxy(outbound_proxy),
        cpu=resources["cpu"] or 1,
        memory_gib=resources["memory"] or 1,
        disk_gib=resources["disk"] or 3,
        auto_stop_minutes=(0 if pause else DEFAULT_AUTO_STOP_MINUTES) if stop is None else stop,
        auto_pause_minutes=pause or 0,
        auto_archive_minutes=archive_minutes(archive),
        auto_delete_minutes=AUTO_DELETE_OFF if delete is None else max(delete, AUTO_DELETE_OFF),
        ttl_minutes=ttl or None,
        linked=linked,
    )


def _telemetry(fields: Fields) -> dict[str, str]:
    """The variable by which a daemon knows its collector. Raises `BadRequest`."""
    endpoint = fields.string("otelEndpointOverride")
    if not endpoint:
        return {}
    if not _URL.fullmatch(endpoint):
        raise BadRequest("otelEndpointOverride must be an http or https URL")
    return {OTEL_ENDPOINT: endpoint}


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


def _check_source(
    snapshot: str | None, build: BuildRequest | None, resources: dict[str, Any], linked: str | None
) -> None:
    if build is not None:
        if snapshot:
            raise BadRequest("Cannot specify a snapshot when using a build info entry")
        if linked is not None:
            raise BadRequest(linking.WITH_BUILD)
        check_dockerfile(build.dockerfile)
    elif any(resources.values()):
        raise BadRequest("Cannot specify Sandbox resources when using a snapshot")


def _check_target(target: str | None, region: str) -> None:
    if target and target != region:
        raise NotFound("Region not found")


def _refuse_what_is_missing(fields: Fields) -> None:
    for name, title in NOT_YET.items():
        if fields.raw(name):
            raise NotImplementedHere(f"{title} are not supported yet ({name})")
