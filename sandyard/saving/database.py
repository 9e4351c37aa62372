"""Every row as a line of JSON, the same for SQLite and PostgreSQL."""

import json
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Table, delete, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from sandyard_api.database import Database, UtcDateTime
from sandyard_api.dispatch.specs import spec_of
from sandyard_api.jobs.wire import SandboxSpec
from sandyard_api.sandboxes.models import Sandbox
from sandyard_api.sandboxes.states import Observed
from sandyard_api.sealing.service import Seal
from sandyard_api.tables import METADATA

OWN = frozenset({"seal_checks", "runners"})
"""Tables that each installation has for itself."""
SEALED = "_sealed"
HAS_FILES = (
    *(Observed.STARTED, Observed.STOPPING, Observed.STOPPED, Observed.STARTING, Observed.PAUSING, Observed.PAUSED),
    *(Observed.RESUMING, Observed.RESIZING, Observed.SNAPSHOTTING),
)
"""States in which a runtime holds a sandbox; what it held of others is gone, an image, or not made yet."""
BATCH = 500


async def write(database: Database, target: Path, seal: Seal) -> dict[str, int]:
    """Write the rows of every table; how many of each."""
    counts: dict[str, int] = {}
    with target.open("w", encoding="utf-8") as file:
        async with database.reading() as db:
            for table in METADATA.sorted_tables:
                if table.name in OWN:
                    continue
                rows = await db.stream(select(table).order_by(*table.primary_key.columns))
                counts[table.name] = 0
                async for row in rows.mappings():
                    values = {name: _out(name, value, seal) for name, value in row.items()}
                    file.write(json.dumps([table.name, values], ensure_ascii=True) + "\n")
                    counts[table.name] += 1
    return counts


async def is_used(database: Database) -> bool:
    """Whether there is any sandbox."""
    async with database.reading() as db:
        return bool(await db.scalar(select(func.count()).select_from(Sandbox)))


async def with_files(database: Database) -> set[str]:
    """Ids of the sandboxes that must have files somewhere."""
    async with database.reading() as db:
        return set(await db.scalars(select(Sandbox.id).where(Sandbox.observed.in_(HAS_FILES))))


def specs(source: Path, images: Mapping[str, str]) -> list[SandboxSpec]:
    """What runners have to know of those sandboxes, each with its image: `{sandbox id: image}`. Blocks."""
    found, owners = [], set()
    with source.open(encoding="utf-8") as file:
        for line in file:
            name, values = json.loads(line)
            if name == Sandbox.__tablename__:
                owners.add(values["linked_sandbox_id"])
            if name == Sandbox.__tablename__ and values["id"] in images:
                table = METADATA.tables[name]
                # Its sealed columns are open in the file; the door's secret is new at every start.
                row = Sandbox(**{column: _in(table, column, value, None) for column, value in values.items()})
                found.append((row, msgspec.structs.replace(spec_of(row, door_secret=""), image=images[row.id])))
    return [
        # Whose network of linked sandboxes it is in: its owner's, or its own where others are in it.
        msgspec.structs.replace(spec, link=row.linked_sandbox_id or (row.id if row.id in owners else None))
        for row, spec in found
    ]


async def read(database: Database, source: Path, seal: Seal, *, images: Mapping[str, str]) -> None:
    """Put the rows in place of what setting up made, in one transaction. `images` as for `specs`."""
    async with database.transaction() as db:
        for table in reversed(METADATA.sorted_tables):
            if table.name not in OWN:
                await db.execute(delete(table))
        with source.open(encoding="utf-8") as file:
            batch: list[dict[str, Any]] = []
            current: Table | None = None
            for line in file:
                name, values = json.loads(line)
                table = METADATA.tables[name]
                if current is not None and (table is not current or len(batch) >= BATCH):
                    await db.execute(insert(current), batch)
                    batch = []
                current = table
                if name == Sandbox.__tablename__ and values["id"] in images:
                    values["archive_image"] = images[values["id"]]  # it goes with the sandbox
                batch.append({column: _in(table, column, value, seal) for column, value in values.items()})
            if current is not None and batch:
                await db.execute(insert(current), batch)
        await _count_on(db)


async def _count_on(db: AsyncSession) -> None:
    """Let PostgreSQL's own numbers go on behind those that were put in; SQLite's do by themselves."""
    if db.get_bind().dialect.name != "postgresql":
        return
    for table in METADATA.sorted_tables:
        column = table.autoincrement_column
        if column is not None:
            place = f"pg_get_serial_sequence('{table.name}', '{column.name}')"
            highest = f"(select coalesce(max({column.name}), 0) + 1 from {table.name})"  # noqa: S608  our own names
            await db.execute(text(f"select setval({place}, {highest}, false) where {place} is not null"))


def _out(name: str, value: Any, seal: Seal) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    return seal.open(value) if name.endswith(SEALED) and value is not None else value


def _in(table: Table, name: str, value: Any, seal: Seal | None) -> Any:
    kind = table.columns[name].type
    if value is None:
        return None
    if isinstance(kind, UtcDateTime):
        return datetime.fromisoformat(value)
    enum_class = getattr(kind, "enum_class", None)
    if enum_class is not None:
        return enum_class(value)
    return seal.close(value) if seal is not None and name.endswith(SEALED) else value
