"""Rows of the control plane, with everything that a test does not care about filled in."""

from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from sandyard_api.jobs.queue import Order, add_job
from sandyard_api.jobs.wire import JobKind
from sandyard_api.organizations.models import Organization
from sandyard_api.sandboxes.models import Sandbox
from sandyard_api.sandboxes.states import Desired, Observed

ORGANIZATION_ID = "organization-1"
NOON = datetime.fromisoformat("2026-03-04T12:00:00+00:00")


def organization(**values: Any) -> Organization:
    """An organization."""
    return Organization(**{"id": ORGANIZATION_ID, "name": "factory", "created_at": NOON} | values)


def sandbox(sandbox_id: str, **values: Any) -> Sandbox:
    """A started sandbox of that organization."""
    defaults: dict[str, Any] = {
        "id": sandbox_id,
        "organization_id": ORGANIZATION_ID,
        "name": sandbox_id,
        "region": "local",
        "env": {},
        "labels": {},
        "public": False,
        "network_block_all": False,
        "volumes": [],
        "cpu": 1,
        "gpu": 0,
        "memory_gib": 1,
        "disk_gib": 3,
        "observed": Observed.STARTED,
        "desired": Desired.STARTED,
        "progressed_at": NOON,
        "recoverable": False,
        "auto_stop_minutes": 15,
        "auto_pause_minutes": 0,
        "auto_archive_minutes": 10080,
        "auto_delete_minutes": -1,
        "preview_token_hash": f"hash of {sandbox_id}",
        "preview_token_sealed": "",
        "signing_key_sealed": None,
        "door_secret_sealed": "",
        "created_at": NOON,
        "updated_at": NOON,
        "last_activity_at": NOON,
    }
    return Sandbox(**defaults | values)


async def job(db: AsyncSession, sandbox_id: str, **values: Any) -> str:
    """An open job, by id."""
    order = Order(values.pop("kind", JobKind.START))
    defaults: dict[str, Any] = {"runner_id": None, "at": NOON}
    row = add_job(db, order, job_id=f"job of {sandbox_id}", sandbox_id=sandbox_id, **defaults | values)
    await db.flush()
    return row.id
