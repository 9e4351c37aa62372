"""Whether one more fits, and how much is used. *Source:* control-plane.md 16.4."""

import msgspec
from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from sandyard_api.errors import BadRequest
from sandyard_api.quotas.limits import Limits
from sandyard_api.sandboxes.models import Sandbox
from sandyard_api.sandboxes.states import SHOWN, Desired, Shown
from sandyard_api.snapshots.models import Snapshot
from sandyard_api.snapshots.states import PREPARING, SnapshotState
from sandyard_api.volumes.models import Volume

RUNNING = frozenset(
    {
        Shown.CREATING,
        Shown.RESTORING,
        Shown.STARTED,
        Shown.STARTING,
        Shown.STOPPING,
        Shown.PENDING_BUILD,
        Shown.BUILDING_SNAPSHOT,
        Shown.UNKNOWN,
        Shown.PULLING_SNAPSHOT,
        Shown.FORKING,
        Shown.PAUSING,
        Shown.RESUMING,
        Shown.RESIZING,
        Shown.SNAPSHOTTING,
    }
)
"""What has cores and memory."""
KEPT = RUNNING | {Shown.STOPPED, Shown.PAUSED, Shown.ARCHIVING}
"""What has a disk."""
COUNTED_SNAPSHOTS = (*PREPARING, SnapshotState.SNAPSHOTTING, SnapshotState.ACTIVE)
"""Snapshots that have an image, or are to get one."""
MORE_PER_SANDBOX = "This is a limit of the installation: SANDYARD_LIMITS raises it."
MORE_DISK = "Archive or delete sandboxes, or raise SANDYARD_LIMITS."
MORE_RUNNING = "Stop or delete sandboxes, or raise SANDYARD_LIMITS."


class Use(msgspec.Struct, frozen=True):
    """Cores and GiB in use."""

    cpu: int = 0
    memory: int = 0
    disk: int = 0


class Quotas:
    """Checks requests against the limits; raises `BadRequest` with the platform's words."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits

    def check_size(self, *, cpu: int, memory: int, disk: int) -> None:
        """Whether one sandbox may be that large."""
        limits = self.limits
        for asked, most, words in (
            (cpu, limits.sandbox_cpu, f"CPU request {cpu} exceeds maximum allowed per sandbox ({limits.sandbox_cpu})."),
            (
                memory,
                limits.sandbox_memory,
                f"Memory request {memory}GB exceeds maximum allowed per sandbox ({limits.sandbox_memory}GB).",
            ),
            (
                disk,
                limits.sandbox_disk,
                f"Disk request {disk}GB exceeds maximum allowed per sandbox ({limits.sandbox_disk}GB).",
            ),
        ):
            if asked > most:
                raise BadRequest(f"{words}\n{MORE_PER_SANDBOX}")

    async def check(self, db: AsyncSession, row: Sandbox) -> None:
        """Whether a sandbox that is about to be written may be."""
        self.check_size(cpu=row.cpu, memory=row.memory_gib, disk=row.disk_gib)
        await self.check_room(db, row.organization_id, cpu=row.cpu, memory=row.memory_gib, disk=row.disk_gib)

    async def check_snapshots(self, db: AsyncSession, organization_id: str) -> None:
        """Whether one more snapshot may be made or activated."""
        if await snapshots_in_use(db, organization_id) >= self.limits.snapshots:
            raise BadRequest(f"Snapshot quota exceeded. Maximum allowed: {self.limits.snapshots}")

    async def check_volumes(self, db: AsyncSession, organization_id: str) -> None:
        """Whether one more volume may be made."""
        if await volumes_in_use(db, organization_id) >= self.limits.volumes:
            raise BadRequest(f"Volume quota exceeded. Maximum allowed: {self.limits.volumes}")

    async def check_room(self, db: AsyncSession, organization_id: str, *, cpu: int, memory: int, disk: int) -> None:
        """Whether that much more fits beside what the organization uses."""
        limits, used = self.limits, await use(db, organization_id)
        if used.cpu + cpu > limits.cpu:
            raise BadRequest(f"Total CPU limit exceeded. Maximum allowed: {limits.cpu}.\n{MORE_RUNNING}")
        if used.memory + memory > limits.memory:
            raise BadRequest(f"Total memory limit exceeded. Maximum allowed: {limits.memory}GiB.\n{MORE_RUNNING}")
        if used.disk + disk > limits.disk:
            raise BadRequest(f"Total disk limit exceeded. Maximum allowed: {limits.disk}GiB.\n{MORE_DISK}")


async def snapshots_in_use(db: AsyncSession, organization_id: str) -> int:
    """How many snapshots of the organization count."""
    theirs = select(func.count()).where(Snapshot.organization_id == organization_id)
    return await db.scalar(theirs.where(Snapshot.state.in_(COUNTED_SNAPSHOTS))) or 0


async def volumes_in_use(db: AsyncSession, organization_id: str) -> int:
    """How many volumes the organization has."""
    theirs = select(func.count()).where(Volume.organization_id == organization_id, Volume.deleted_at.is_(None))
    return await db.scalar(theirs) or 0


async def use(db: AsyncSession, organization_id: str) -> Use:
    """What an organization's sandboxes use now. What waits in a warm pool counts when it is claimed."""
    sums = select(
        Sandbox.observed,
        Sandbox.desired,
        func.sum(Sandbox.cpu),
        func.sum(Sandbox.memory_gib),
        func.sum(Sandbox.disk_gib),
    ).where(
        Sandbox.organization_id == organization_id,
        Sandbox.desired != Desired.DESTROYED,
        or_(Sandbox.warm_pool_id.is_(None), Sandbox.claimed_at.is_not(None)),
    )
    cpu = memory = disk = 0
    for observed, desired, cores, gib, disk_gib in await db.execute(sums.group_by(Sandbox.observed, Sandbox.desired)):
        shown = SHOWN[observed, desired]
        if shown in RUNNING:
            cpu, memory = cpu + int(cores), memory + int(gib)
        if shown in KEPT:
            disk += int(disk_gib)
    return Use(cpu, memory, disk)
