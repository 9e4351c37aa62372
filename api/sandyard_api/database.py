"""The database behind one contract for SQLite and PostgreSQL: base class, types and transactions. No queries."""

import asyncio
import enum
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Enum, Index, Text, event, text
from sqlalchemy.engine import Connection, Dialect, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.schema import MetaData
from sqlalchemy.types import TypeDecorator

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
SQLITE_BUSY_MILLISECONDS = 10_000
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
"""What PostgreSQL's text cannot hold: NUL, and halves of characters."""


class UnusableDatabase(Exception):
    """There is no database behind the URL, or not one of ours. The text is for whoever wrote the URL."""


class StorableText(TypeDecorator[str]):
    """Text in which a replacement character stands for each `UNSTORABLE` one, so that no value is an error.

    It equals no stored text then, and what a runner reports is kept all the same.
    """

    impl = Text()
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return value if value is None else UNSTORABLE.sub("\ufffd", value)


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC in Python on both databases; SQLite stores it without the offset. Refuses naive values."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a datetime without a time zone")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Every table. Enums are stored by value, times in UTC, maps and lists as JSON."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {  # noqa: RUF012  SQLAlchemy reads it as a class attribute
        datetime: UtcDateTime(),
        str: StorableText(),
        dict[str, str]: JSON(),
        dict[str, Any]: JSON(),
        list[Any]: JSON(),
        list[dict[str, str]]: JSON(),
        list[str]: JSON(),
        enum.Enum: Enum(
            enum.Enum,
            values_callable=lambda kind: [member.value for member in kind],
            native_enum=False,
            create_constraint=False,
            length=32,
        ),
    }


def partial_index(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    """An index of those rows for which `where` holds.

    The tables are made by the migrations, which say it for both databases. Here it is said for SQLite alone, because
    SQLAlchemy imports all that it knows of PostgreSQL for the argument's name.
    """
    return Index(name, *columns, unique=unique, sqlite_where=text(where))


class Database:
    """Hands out transactions. On SQLite writers queue in order of arrival, so that nobody meets its busy wait."""

    def __init__(self, engine: AsyncEngine, write_gate: AbstractAsyncContextManager[Any]) -> None:
        self.engine = engine
        self._write_gate = write_gate
        self._writing = async_sessionmaker(engine, expire_on_commit=False)
        self._reading = async_sessionmaker(engine.execution_options(sandyard_read_only=True), expire_on_commit=False)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """A transaction that may write: committed at the end of the block, undone when the block raises."""
        async with self._write_gate, self._writing.begin() as session:
            yield session

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncSession]:
        """A transaction that only reads; on SQLite it takes no lock and sees one moment."""
        async with self._reading.begin() as session:
            yield session

    async def ping(self) -> None:
        """Return when the database answers a query."""
        async with self.reading() as session:
            await session.execute(text("select 1"))


def normal_url(database_url: str) -> str:
    """The URL with the driver that we use: plain `sqlite:` and `postgresql:` forms are accepted too.

    Raises `UnusableDatabase` for any other.
    """
    forms = "it takes sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME"
    try:
        url = make_url(database_url)
    except (ArgumentError, ValueError) as error:
        raise UnusableDatabase(f"the database's URL is none; {forms}") from error
    drivers = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}
    url = url.set(drivername=drivers.get(url.drivername, url.drivername))
    if url.drivername not in drivers.values():
        raise UnusableDatabase(f"the database's URL begins with {url.drivername}:; {forms}")
    return url.render_as_string(hide_password=False)


@asynccontextmanager
async def open_database(database_url: str) -> AsyncIterator[Database]:
    """The database of a URL, `sqlite:///path` or `postgresql://user:password@host/name`: connections are made when
    they are needed, and the schema by the migrations. Raises `UnusableDatabase` for any other URL.
    """
    url = make_url(normal_url(database_url))
    is_sqlite = url.get_backend_name() == "sqlite"
    if is_sqlite:
        engine = create_async_engine(url, connect_args={"timeout": SQLITE_BUSY_MILLISECONDS / 1000})
        _prepare_sqlite(engine)
    else:
        engine = create_async_engine(url, pool_size=10, max_overflow=10, pool_pre_ping=True, pool_timeout=10)
    try:
        yield Database(engine, asyncio.Lock() if is_sqlite else nullcontext())
    finally:
        await engine.dispose()


def _prepare_sqlite(engine: AsyncEngine) -> None:
    """Take transactions into our own hands: the driver would begin them late and without the write lock."""

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (
            "journal_mode=WAL",
            "synchronous=NORMAL",
            "foreign_keys=ON",
            f"busy_timeout={SQLITE_BUSY_MILLISECONDS}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        read_only = connection.get_execution_options().get("sandyard_read_only", False)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
