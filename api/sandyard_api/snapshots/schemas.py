"""What clients see of snapshots."""

from datetime import datetime

import msgspec
from msgspec import UNSET, UnsetType

from sandyard_api.snapshots.models import Snapshot


class SnapshotBuildInfo(msgspec.Struct, rename="camel"):
    """What a snapshot was built from."""

    dockerfile_content: str
    context_hashes: list[str]
    created_at: datetime
    updated_at: datetime
    snapshot_ref: str


class SnapshotDto(msgspec.Struct, rename="camel", kw_only=True):
    """A snapshot. Memory is `mem` here, and `memory` in requests."""

    id: str
    organization_id: str | UnsetType = UNSET
    general: bool
    name: str
    image_name: str | UnsetType = UNSET
    state: str
    size: float | None
    """GiB."""
    entrypoint: list[str] | None
    cpu: int
    gpu: int = 0
    mem: int
    disk: int
    error_reason: str | None
    created_at: datetime
    updated_at: datetime
    last_used_at: datetime | None
    build_info: SnapshotBuildInfo | UnsetType = UNSET
    region_ids: list[str]
    initial_runner_id: str | UnsetType = UNSET
    ref: str | UnsetType = UNSET
    source_sandbox_id: str | None
    sandbox_class: str = "container"


class SnapshotPage(msgspec.Struct, rename="camel"):
    """A page of the list."""

    items: list[SnapshotDto]
    total: int
    page: int
    total_pages: int


def snapshot_dto(row: Snapshot) -> SnapshotDto:
    """The row as an answer."""
    return SnapshotDto(
        id=row.id,
        organization_id=row.organization_id or UNSET,
        general=row.is_general,
        name=row.name,
        image_name=row.image_name or UNSET,
        state=row.state.value,
        size=row.size_gib,
        entrypoint=row.entrypoint or row.image_entrypoint,
        cpu=row.cpu,
        mem=row.memory_gib,
        disk=row.disk_gib,
        error_reason=row.error_reason,
        created_at=row.created_at,
        updated_at=row.updated_at,
        last_used_at=row.last_used_at,
        build_info=_build_info(row),
        region_ids=[row.region],
        initial_runner_id=row.runner_id or UNSET,
        ref=row.image or row.image_name or UNSET,
        source_sandbox_id=row.source_sandbox_id,
    )


def _build_info(row: Snapshot) -> SnapshotBuildInfo | UnsetType:
    if row.dockerfile is None:
        return UNSET
    return SnapshotBuildInfo(
        dockerfile_content=row.dockerfile,
        context_hashes=row.context_hashes,
        created_at=row.created_at,
        updated_at=row.created_at,
        snapshot_ref=row.image or row.name,
    )


class SnapshotUrl(msgspec.Struct):
    """One URL."""

    url: str
