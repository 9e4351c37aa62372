"""Resize and recover: requests that depend on more of a sandbox than its state."""

from datetime import timedelta

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from sandyard.clock import Clock
from sandyard_api.errors import BadRequest, Conflict
from sandyard_api.jobs.queue import Order
from sandyard_api.jobs.wire import JobKind, Resources
from sandyard_api.quotas.service import Quotas
from sandyard_api.sandboxes.models import Sandbox
from sandyard_api.sandboxes.moves import Move
from sandyard_api.sandboxes.service import Sandboxes
from sandyard_api.sandboxes.states import REQUESTS, Desired, Observed, Request
from sandyard_api.validation import Fields

RECOVERY_PAUSE = timedelta(hours=1)


class Wish(msgspec.Struct, frozen=True):
    """The resources a resize names; `None` stays as it is."""

    cpu: int | None
    memory_gib: int | None
    disk_gib: int | None

    @classmethod
    def read(cls, body: object) -> "Wish":
        """From a request's body. Raises `BadRequest`."""
        fields = Fields(body)
        wish = cls(*(fields.integer(name, minimum=1) for name in ("cpu", "memory", "disk")))
        fields.check()
        return wish


class Repairs:
    """Both take an organization and an id or name, and raise `NotFound` for what is not theirs."""

    def __init__(self, sandboxes: Sandboxes, clock: Clock, quotas: Quotas) -> None:
        self._sandboxes = sandboxes
        self._clock = clock
        self._quotas = quotas

    async def resize(self, organization_id: str, key: str, wish: Wish) -> Sandbox:
        """Ask for other limits; answers at once, `resizing`. Raises `BadRequest`, `Conflict`, `Unprocessable`."""

        async def ask(db: AsyncSession, row: Sandbox) -> list[Move]:
            if (row.observed, row.desired, Request.RESIZE) in REQUESTS:
                _check_resize(row, wish)
            wanted = _resources(row, wish)
            self._quotas.check_size(cpu=wanted.cpu, memory=wanted.memory_gib, disk=wanted.disk_gib)
            order = Order(JobKind.RESIZE, resources=wanted)
            return await self._sandboxes.ask(db, row, Request.RESIZE, cause="resize by a request", order=order)

        return await self._sandboxes.apply(organization_id, key, ask, wait=False)

    async def recover(self, organization_id: str, key: str, *, skip_start: bool) -> Sandbox:
        """Make whole what failed, start it unless told not to, and wait. Raises `BadRequest`, `Conflict`."""
        asked = Request.RECOVER_STOPPED if skip_start else Request.RECOVER

        async def ask(db: AsyncSession, row: Sandbox) -> list[Move]:
            now = self._clock.now()
            if row.observed is Observed.ERROR and row.desired is not Desired.DESTROYED:
                if not row.recoverable:
                    raise BadRequest("Sandbox is not in a recoverable state")
                if row.recovered_at is not None and now - row.recovered_at < RECOVERY_PAUSE:
                    raise Conflict("Sandbox recovery has been attempted recently. Please try again later")
            return await self._sandboxes.ask(db, row, asked, cause="recover by a request", recovered_at=now)

        return await self._sandboxes.apply(organization_id, key, ask, wait=True)


def _resources(row: Sandbox, wish: Wish) -> Resources:
    return Resources(wish.cpu or row.cpu, wish.memory_gib or row.memory_gib, wish.disk_gib or row.disk_gib)


def _check_resize(row: Sandbox, wish: Wish) -> None:
    wanted = _resources(row, wish)
    if wanted == Resources(row.cpu, row.memory_gib, row.disk_gib):
        raise BadRequest("No resource changes specified - sandbox is already at the desired configuration")
    if wanted.disk_gib < row.disk_gib:
        raise BadRequest("Sandbox disk size cannot be decreased")
    if row.observed is not Observed.STARTED:
        return
    if wanted.disk_gib != row.disk_gib:
        raise BadRequest("Disk resize can only be performed on a stopped sandbox")
    if wanted.cpu < row.cpu:
        raise BadRequest("Sandbox must be in stopped state to decrease the number of CPU cores")
    if wanted.memory_gib < row.memory_gib:
        raise BadRequest("Sandbox must be in stopped state to decrease memory")
