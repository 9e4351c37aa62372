"""Every row as a line of JSON, the same for SQLite and PostgreSQL."""

import json
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

from sqlalchemy import Table, delete, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from sandyard_api.database import Database, UtcDateTime
from sandyard_api.sandboxes.models import Sandbox
from sandyard_api.sealing.service import Seal
from sandyard_api.tables import METADATA

OWN = frozenset({"seal_checks", "runners"})
"""Tables that each installation has for itself."""
SEALED = "_sealed"
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


async def read(database: Database, source: Path, seal: Seal) -> None:
    """Put the rows in place of what setting up made, in one transaction."""
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


def _in(table: Table, name: str, value: Any, seal: Seal) -> Any:
    kind = table.columns[name].type
    if value is None:
        return None
    if isinstance(kind, UtcDateTime):
        return datetime.fromisoformat(value)
    enum_class = getattr(kind, "enum_class", None)
    if enum_class is not None:
        return enum_class(value)
    return seal.close(value) if name.endswith(SEALED) else value
