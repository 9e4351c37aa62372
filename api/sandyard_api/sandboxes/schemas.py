"""What clients see of a sandbox. Absent values are left out, as the platform does."""

from datetime import datetime
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from sandyard_api.sandboxes.models import Sandbox
from sandyard_api.sandboxes.states import SHOWN, Observed, Shown
from sandyard_api.snapshots.images import DEFAULT_IMAGE_TITLE

DEFAULT_USER = "daytona"
OTEL_ENDPOINT = "DAYTONA_OTEL_ENDPOINT"
"""A sandbox's variable: the collector of its daemon."""


class BuildInfo(msgspec.Struct, rename="camel", kw_only=True):
    """How the image of a sandbox came to be. Complete whenever it is there."""

    dockerfile_content: str
    context_hashes: list[str]
    created_at: datetime
    updated_at: datetime
    snapshot_ref: str


class SandboxVolume(msgspec.Struct, rename="camel", kw_only=True, omit_defaults=True):
    """A volume that a sandbox mounts."""

    volume_id: str
    mount_path: str
    subpath: str | UnsetType = UNSET


class SandboxListItem(msgspec.Struct, rename="camel", kw_only=True):
    """A sandbox in a list: no `env`, whose presence tells the TypeScript client a full answer."""

    id: str
    organization_id: str
    name: str
    target: str
    runner_id: str | UnsetType = UNSET
    sandbox_class: str = "container"
    state: Shown
    desired_state: str
    snapshot: str | UnsetType = UNSET
    user: str
    error_reason: str | UnsetType = UNSET
    recoverable: bool
    public: bool
    network_block_all: bool
    network_allow_list: str | UnsetType = UNSET
    domain_allow_list: str | UnsetType = UNSET
    cpu: int
    gpu: int
    memory: int
    disk: int
    labels: dict[str, str]
    backup_state: str = "None"
    auto_stop_interval: int
    auto_pause_interval: int
    auto_archive_interval: int
    auto_delete_interval: int
    auto_destroy_at: datetime | UnsetType = UNSET
    created_at: datetime
    updated_at: datetime
    last_activity_at: datetime
    daemon_version: str | UnsetType = UNSET
    warm_pool_id: str | UnsetType = UNSET
    toolbox_proxy_url: str


class SandboxDto(SandboxListItem, kw_only=True):
    """The full answer."""

    env: dict[str, str]
    kvm: bool = False
    outbound_proxy_url: str | UnsetType = UNSET
    """Without the credentials, which nobody is shown again."""
    volumes: list[SandboxVolume]
    linked_sandbox_id: str | UnsetType = UNSET
    build_info: BuildInfo | UnsetType = UNSET
    otel_endpoint_override: str | UnsetType = UNSET
    """Where its daemon sends metrics, lines and traces; the variable `OTEL_ENDPOINT` of `env`."""


class Url(msgspec.Struct):
    """One URL."""

    url: str


class Labels(msgspec.Struct):
    """The whole set of labels."""

    labels: dict[str, str]


class CursorPage(msgspec.Struct, rename="camel"):
    """A page of the list; `next_cursor` is there even when null."""

    items: list[SandboxListItem]
    next_cursor: str | None


class NumberedPage(msgspec.Struct, rename="camel"):
    """A page of the older list, its items in the form that the caller's release knows."""

    items: list[Any]
    total: int
    page: int
    total_pages: int


def shown_state(row: Sandbox) -> Shown:
    """The state clients see."""
    return SHOWN[row.observed, row.desired]


def list_item(row: Sandbox, toolbox_url: str) -> SandboxListItem:
    """The row as an item of a list."""
    return SandboxListItem(
        id=row.id,
        organization_id=row.organization_id,
        name=row.name,
        target=row.region,
        # An archived one is nowhere, as far as clients are concerned.
        runner_id=row.runner_id if row.runner_id and row.observed is not Observed.ARCHIVED else UNSET,
        state=shown_state(row),
        desired_state=row.desired.value,
        snapshot=row.snapshot or UNSET,
        user=row.user or DEFAULT_USER,
        error_reason=row.error_reason or UNSET,
        recoverable=row.recoverable,
        public=row.public,
        network_block_all=row.network_block_all,
        network_allow_list=row.network_allow_list or UNSET,
        domain_allow_list=row.domain_allow_list or UNSET,
        cpu=row.cpu,
        gpu=row.gpu,
        memory=row.memory_gib,
        disk=row.disk_gib,
        labels=row.labels,
        backup_state="Completed" if row.observed is Observed.ARCHIVED else "None",
        auto_stop_interval=row.auto_stop_minutes,
        auto_pause_interval=row.auto_pause_minutes,
        auto_archive_interval=row.auto_archive_minutes,
        auto_delete_interval=row.auto_delete_minutes,
        auto_destroy_at=row.auto_destroy_at or UNSET,
        created_at=row.created_at,
        updated_at=row.updated_at,
        last_activity_at=row.last_activity_at,
        daemon_version=row.daemon_version or UNSET,
        warm_pool_id=row.warm_pool_id or UNSET,
        toolbox_proxy_url=toolbox_url,
    )


def full(row: Sandbox, toolbox_url: str) -> SandboxDto:
    """The row as a full answer."""
    item = list_item(row, toolbox_url)
    values = {name: getattr(item, name) for name in SandboxListItem.__struct_fields__}
    volumes = [msgspec.convert(entry, SandboxVolume) for entry in row.volumes]
    return SandboxDto(
        **values,
        env=row.env,
        outbound_proxy_url=row.outbound_proxy_url or UNSET,
        volumes=volumes,
        linked_sandbox_id=row.linked_sandbox_id or UNSET,
        build_info=_build_info(row),
        otel_endpoint_override=row.env.get(OTEL_ENDPOINT) or UNSET,
    )


def _build_info(row: Sandbox) -> BuildInfo | UnsetType:
    if row.dockerfile is None:
        return UNSET
    return BuildInfo(
        dockerfile_content=row.dockerfile,
        context_hashes=row.context_hashes,
        created_at=row.created_at,
        updated_at=row.created_at,
        snapshot_ref=row.image or DEFAULT_IMAGE_TITLE,
    )
