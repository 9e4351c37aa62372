"""Linked sandboxes: ephemeral companions of another one, on its runner. *Source:* control-plane.md 4.5."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from sandyard_api.errors import BadRequest
from sandyard_api.runners.service import Runners
from sandyard_api.sandboxes.models import Sandbox
from sandyard_api.sandboxes.states import SHOWN, Desired, Shown

WITH_BUILD = "linkedSandbox is not supported with declarative builds. Create a sandbox from a snapshot"
NOT_EPHEMERAL = "Linked sandboxes must be ephemeral - set autoDeleteInterval to 0"


async def check_owner(db: AsyncSession, runners: Runners, owner: Sandbox) -> None:
    """Raise unless a sandbox may be linked to `owner` now; until the transaction ends, nobody else moves it.

    Raises `BadRequest`, and `Unprocessable` where its runner cannot join networks.
    """
    await db.execute(select(Sandbox.id).where(Sandbox.id == owner.id).with_for_update())
    await db.refresh(owner)
    if owner.linked_sandbox_id is not None:
        raise BadRequest(f"Sandbox {owner.name} is linked to another sandbox and cannot be linked to")
    shown = SHOWN[owner.observed, owner.desired]
    if shown not in (Shown.STARTED, Shown.STOPPED) or owner.runner_id is None:
        raise BadRequest(f"Sandbox {owner.name} must be started or stopped to be linked to; it is {shown.value}")
    await runners.check(db, owner.runner_id, "links", "Linked sandboxes are not supported for this sandbox")


async def linked_to(db: AsyncSession, owner_id: str) -> Sequence[Sandbox]:
    """The living ones that are linked to a sandbox."""
    linked = select(Sandbox).where(Sandbox.linked_sandbox_id == owner_id, Sandbox.desired != Desired.DESTROYED)
    return (await db.scalars(linked.order_by(Sandbox.id))).all()
