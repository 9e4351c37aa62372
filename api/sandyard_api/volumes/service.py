"""What can be done with volumes: create, find, list, delete, and give them to sandboxes."""

from collections.abc import Sequence

from sqlalchemy import Select, Text, cast, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from sandyard.bus import Bus
from sandyard.clock import Clock
from sandyard.folders import SCHEME, SETTING, HostFolder, grant
from sandyard.ids import IdSource
from sandyard_api.database import Database
from sandyard_api.errors import BadRequest, Conflict, NotFound
from sandyard_api.events.telling import Event, Teller
from sandyard_api.jobs.wire import CHANNEL_VOLUMES
from sandyard_api.quotas.service import Quotas
from sandyard_api.sandboxes.models import Sandbox
from sandyard_api.sandboxes.states import Desired
from sandyard_api.volumes.models import Volume
from sandyard_api.volumes.requests import WantedMount, check_mounts
from sandyard_api.volumes.schemas import DELETED, READY, volume_dto


class Volumes:
    """The verbs. Every method takes an organization and raises `NotFound` for what is not theirs."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        ids: IdSource,
        bus: Bus,
        *,
        quotas: Quotas,
        host_folders: Sequence[HostFolder] = (),
    ) -> None:
        self._database = database
        self._clock = clock
        self._ids = ids
        self._teller = Teller(bus)
        self._quotas = quotas
        self._host_folders = host_folders

    async def create(self, organization_id: str, name: str) -> Volume:
        """Make one, ready at once. Raises `BadRequest` for a name that is taken and beyond the limit."""
        now = self._clock.now()
        row = Volume(id=self._ids.uuid(), organization_id=organization_id, name=name, created_at=now, updated_at=now)
        try:
            async with self._database.transaction() as db:
                await self._quotas.check_volumes(db, organization_id)
                db.add(row)
        except IntegrityError as error:
            raise BadRequest(f"Volume with name {name} already exists") from error
        await self._teller.tell(_event("volume.created", row))
        return row

    async def list(self, organization_id: str, *, include_deleted: bool = False) -> Sequence[Volume]:
        """All of them, oldest first."""
        theirs = select(Volume).where(Volume.organization_id == organization_id)
        if not include_deleted:
            theirs = theirs.where(Volume.deleted_at.is_(None))
        async with self._database.reading() as db:
            return (await db.scalars(theirs.order_by(Volume.created_at, Volume.id))).all()

    async def get(self, organization_id: str, volume_id: str) -> Volume:
        """One by its id."""
        async with self._database.reading() as db:
            row = await db.scalar(_living(organization_id).where(Volume.id == volume_id))
        if row is None:
            raise _unknown(volume_id)
        return row

    async def get_by_name(self, organization_id: str, name: str) -> Volume:
        """One by its name."""
        async with self._database.reading() as db:
            row = await db.scalar(_living(organization_id).where(Volume.name == name))
        if row is None:
            raise NotFound(f"Volume with name {name} not found")
        return row

    async def delete(self, organization_id: str, volume_id: str) -> None:
        """Forget it; runners remove what is in it. Raises `Conflict` while a living sandbox has it."""
        now = self._clock.now()
        async with self._database.transaction() as db:
            # First the write, whose lock whoever mounts it now waits for; only then the look at who has it.
            row: Volume | None = await db.scalar(
                update(Volume)
                .where(Volume.id == volume_id, Volume.organization_id == organization_id, Volume.deleted_at.is_(None))
                .values(name=Volume.name + "-deleted", deleted_at=now, updated_at=now)
                .returning(Volume)
                .execution_options(synchronize_session=False)
            )
            if row is None:
                raise _unknown(volume_id)
            if (user := await _user_of(db, volume_id)) is not None:
                raise Conflict(f"Volume cannot be deleted because it is in use by one or more sandboxes (e.g. {user})")
        await self._teller.tell(_event("volume.state.updated", row, READY, DELETED))
        await self._teller.hint(CHANNEL_VOLUMES, volume_id)

    async def use(self, db: AsyncSession, organization_id: str, wanted: Sequence[WantedMount]) -> "Use":
        """What a new sandbox mounts, its volumes noted as used now; `told` is to be called after the commit.

        Raises `BadRequest` in the platform's words, and `NotFound`.
        """
        check_mounts(wanted)
        entries, rows = [], {}
        for mount in wanted:
            if mount.volume.startswith(SCHEME):
                self._check_host_folder(mount.volume.removeprefix(SCHEME))
                entries.append(mount.shown(mount.volume))
                continue
            row = await self._used(db, organization_id, mount.volume)
            rows[row.id] = row
            entries.append(mount.shown(row.id))
        return Use(self._teller, entries, list(rows.values()))

    async def wanted(self) -> Sequence[str]:
        """Ids of all that are not deleted, whoever's."""
        async with self._database.reading() as db:
            return (await db.scalars(select(Volume.id).where(Volume.deleted_at.is_(None)).order_by(Volume.id))).all()

    async def _used(self, db: AsyncSession, organization_id: str, key: str) -> Volume:
        named = or_(Volume.id == key, Volume.name == key)
        found = (await db.scalars(_living(organization_id).where(named))).all()
        if not found:
            raise NotFound(f"Volume '{key}' not found")
        if len(found) > 1:
            raise BadRequest(f"Volume '{key}' is ambiguous: it is the ID of one volume and the name of another")
        row: Volume | None = await db.scalar(
            update(Volume)
            .where(Volume.id == found[0].id, Volume.deleted_at.is_(None))
            .values(last_used_at=self._clock.now())
            .returning(Volume)
            .execution_options(synchronize_session=False, populate_existing=True)
        )
        if row is None:
            raise NotFound(f"Volume '{key}' not found")
        return row

    def _check_host_folder(self, path: str) -> None:
        if grant(self._host_folders, path) is None:
            allowed = ", ".join(folder.path for folder in self._host_folders) or "none"
            raise BadRequest(
                f"The host folder {path} cannot be mounted: it is in no folder that {SETTING} allows ({allowed})"
            )


class Use:
    """What a sandbox that is about to be written mounts."""

    def __init__(self, teller: Teller, entries: Sequence[dict[str, str]], rows: Sequence[Volume]) -> None:
        self.entries = list(entries)
        """`{volumeId, mountPath, subpath?}`, as clients see them."""
        self._teller = teller
        self._rows = rows

    async def told(self) -> None:
        """Tell of the use after its commit."""
        await self._teller.tell(*(_event("volume.lastUsedAt.updated", row) for row in self._rows))


def _living(organization_id: str) -> Select[Volume]:
    return select(Volume).where(Volume.organization_id == organization_id, Volume.deleted_at.is_(None))


def _unknown(volume_id: str) -> NotFound:
    return NotFound(f"Volume with ID {volume_id} not found")


async def _user_of(db: AsyncSession, volume_id: str) -> str | None:
    """The name of a living sandbox that has it."""
    # The text of the list narrows it down on both databases; a mount path might hold the same words.
    maybe = select(Sandbox.name, Sandbox.volumes).where(
        Sandbox.desired != Desired.DESTROYED, cast(Sandbox.volumes, Text).contains(volume_id, autoescape=True)
    )
    for name, entries in await db.execute(maybe.order_by(Sandbox.created_at)):
        if any(entry["volumeId"] == volume_id for entry in entries):
            return str(name)
    return None


def _event(name: str, row: Volume, old: str | None = None, new: str | None = None) -> Event:
    return Event.of(name, row.organization_id, volume_dto(row), old, new)
