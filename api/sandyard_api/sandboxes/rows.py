"""What of a create request becomes of a row."""

from datetime import datetime, timedelta

from sandyard_api.sandboxes.models import Sandbox
from sandyard_api.sandboxes.network_requests import NO_LISTS, without_credentials
from sandyard_api.sandboxes.requests import NewSandbox
from sandyard_api.sandboxes.states import Desired, Observed
from sandyard_api.snapshots.models import Snapshot


def new_row(
    wanted: NewSandbox, snapshot: Snapshot | None, *, organization_id: str, sandbox_id: str, at: datetime
) -> Sandbox:
    """The row of a new sandbox, but for region, secrets and what is sealed; resources are its snapshot's, if any."""
    ttl, build = wanted.ttl_minutes, wanted.build
    return Sandbox(
        id=sandbox_id,
        organization_id=organization_id,
        name=wanted.name or sandbox_id,
        snapshot=snapshot.name if snapshot else None,
        snapshot_id=snapshot.id if snapshot else None,
        image=snapshot.image if snapshot else build.image(organization_id) if build else None,
        dockerfile=build.dockerfile if build else None,
        context_hashes=list(build.context_hashes) if build else [],
        entrypoint=snapshot.entrypoint if snapshot else None,
        user=wanted.user,
        env=wanted.env,
        labels=wanted.labels,
        public=wanted.public,
        outbound_proxy_url=without_credentials(wanted.outbound_proxy) if wanted.outbound_proxy else None,
        **NO_LISTS | wanted.network.columns(),
        cpu=(snapshot or wanted).cpu,
        gpu=0,
        memory_gib=(snapshot or wanted).memory_gib,
        disk_gib=(snapshot or wanted).disk_gib,
        observed=Observed.PENDING_BUILD if build is not None else Observed.PENDING,
        desired=Desired.STARTED,
        progressed_at=at,
        recoverable=False,
        auto_stop_minutes=wanted.auto_stop_minutes,
        auto_pause_minutes=wanted.auto_pause_minutes,
        auto_archive_minutes=wanted.auto_archive_minutes,
        auto_delete_minutes=wanted.auto_delete_minutes,
        auto_destroy_at=at + timedelta(minutes=ttl) if ttl else None,
        created_at=at,
        updated_at=at,
        last_activity_at=at,
    )
