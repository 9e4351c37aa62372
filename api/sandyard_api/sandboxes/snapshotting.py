"""Making a snapshot from a sandbox: its files are kept as an image, and it goes on as it was."""

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from sandyard_api.errors import BadRequest, Conflict
from sandyard_api.jobs.queue import Order
from sandyard_api.jobs.wire import JobKind
from sandyard_api.sandboxes.models import Sandbox
from sandyard_api.sandboxes.moves import Move
from sandyard_api.sandboxes.service import Sandboxes
from sandyard_api.sandboxes.states import Request
from sandyard_api.snapshots.models import Snapshot
from sandyard_api.snapshots.requests import check_name
from sandyard_api.snapshots.service import Snapshots, SourceSandbox
from sandyard_api.validation import Fields


def read_snapshot_name(body: object) -> str:
    """The name of a request for a snapshot of a sandbox. Raises `BadRequest`."""
    fields = Fields(body)
    name, with_memory = fields.name("name"), fields.boolean("includeMemory")
    if fields.raw("name") is None:
        fields.complain("name must be a string")
    fields.check()
    check_name(name or "")
    if with_memory:
        raise BadRequest("Container sandboxes do not support memory snapshots")
    return name or ""


class Snapshotting:
    """Takes an organization and an id or name, and raises `NotFound` for what is not theirs."""

    def __init__(self, sandboxes: Sandboxes, snapshots: Snapshots) -> None:
        self._sandboxes = sandboxes
        self._snapshots = snapshots

    async def snapshot(self, organization_id: str, key: str, name: str) -> Sandbox:
        """Ask for it; answers at once, `snapshotting`. Raises `BadRequest`, `Conflict`, `Unprocessable`."""

        begun: list[Snapshot] = []

        async def ask(db: AsyncSession, row: Sandbox) -> list[Move]:
            source = SourceSandbox(
                row.id, row.runner_id, row.entrypoint, cpu=row.cpu, memory_gib=row.memory_gib, disk_gib=row.disk_gib
            )
            begun.append(await self._snapshots.begin_from_sandbox(db, organization_id, name, source))
            order = Order(JobKind.COMMIT, image=begun[-1].image)
            return await self._sandboxes.ask(db, row, Request.SNAPSHOT, cause="snapshot by a request", order=order)

        try:
            row = await self._sandboxes.apply(organization_id, key, ask, wait=False)
        except IntegrityError as error:
            raise Conflict(f'Snapshot with name "{name}" already exists for this organization') from error
        await self._snapshots.told(begun[-1])
        return row
