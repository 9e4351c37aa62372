"""Bringing a database to the newest schema, from inside the process that is about to use it.

Alembic is imported where there is something to do: it takes a tenth of a second, and most starts find nothing. An empty
SQLite database, which every test run begins with, gets what the migrations lead to in one piece: `sqlite.sql` is
written from them by `make docs`, and compared with them by `make check` and the tests. Where it is of another revision
than the newest, the migrations run.
"""

import asyncio
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, StaticPool, create_engine, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from sandyard_api.database import SQLITE_BUSY_MILLISECONDS, UnusableDatabase

if TYPE_CHECKING:
    from alembic.config import Config

LOCK_NUMBER = 0x5A4D_7961_7264
"""Of the advisory lock that lets one process at a time upgrade a PostgreSQL database."""
UPGRADE_TIMEOUT_SECONDS = 300.0
RETRY_SECONDS = 0.01
SCHEMA, SEPARATOR, VERSIONS = "sqlite.sql", ";\n\n", "alembic_version"
_SCRIPT = re.compile(r"v(\d{4})_\w+\.py")


def alembic_config() -> "Config":
    """The same in a checkout and in a wheel: the scripts are found as a package."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "sandyard_migrations:")
    config.set_main_option("path_separator", "os")
    return config


def newest_revision() -> str:
    """The revision that `upgrade` leads to, by the names of the scripts: one linear history, numbered."""
    scripts = (files("sandyard_migrations") / "versions").iterdir()
    return max(found[1] for script in scripts if (found := _SCRIPT.match(script.name)))


async def upgrade(engine: AsyncEngine, revision: str = "head") -> None:
    """Upgrade under a lock, so that replicas may start at once. Repeating it changes nothing.

    Raises `UnusableDatabase` where the database cannot be had.
    """
    async with asyncio.timeout(UPGRADE_TIMEOUT_SECONDS):
        if revision == "head":
            await _make_whole(engine)
        async with _connected(engine) as connection:
            if revision != "head" or await connection.run_sync(_current) != newest_revision():
                await connection.run_sync(_upgrade, revision)


async def downgrade(engine: AsyncEngine, revision: str = "base") -> None:
    """Go back to an older schema. Raises `UnusableDatabase`."""
    async with asyncio.timeout(UPGRADE_TIMEOUT_SECONDS), _connected(engine) as connection:
        await connection.run_sync(_downgrade, revision)


@asynccontextmanager
async def _connected(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """In a transaction."""
    async with AsyncExitStack() as stack:
        try:
            connection = await stack.enter_async_context(engine.begin())
        except (DBAPIError, OSError) as error:
            raise _unusable(engine, error.orig if isinstance(error, DBAPIError) else error) from error
        yield connection


def _unusable(engine: AsyncEngine, reason: BaseException | None) -> UnusableDatabase:
    return UnusableDatabase(f"the database {engine.url.render_as_string()} cannot be used: {reason}")


def _current(connection: Connection) -> str | None:
    """The revision a database has; `None` for an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(text("select version_num from alembic_version"))
    return found


async def _make_whole(engine: AsyncEngine) -> None:
    """Give an empty SQLite database in a file the newest schema, where that is written down.

    By the driver itself: behind the engine each statement changes threads twice, and that is most of its time.
    """
    if engine.dialect.name != "sqlite" or isinstance(engine.pool, StaticPool):  # one connection: it is in memory
        return
    first, *statements = (files("sandyard_migrations") / SCHEMA).read_text(encoding="utf-8").split(SEPARATOR)
    if first.endswith(f"revision {newest_revision()}"):
        place, options = engine.dialect.create_connect_args(engine.url)
        try:
            await asyncio.to_thread(_execute, place, options, statements)
        except sqlite3.Error as error:
            raise _unusable(engine, error) from error


def _execute(place: Sequence[Any], options: Mapping[str, Any], statements: Sequence[str]) -> None:
    """The statements on an SQLite database, if it is an empty one."""
    seconds = SQLITE_BUSY_MILLISECONDS / 1000
    with closing(sqlite3.connect(*place, **{"timeout": seconds, "isolation_level": None, **options})) as connection:
        _keep_a_write_ahead_log(connection, seconds)
        connection.execute("begin immediate")
        with connection:
            if connection.execute("select 1 from sqlite_master").fetchone() is None:
                for statement in statements:
                    connection.execute(statement)


def _keep_a_write_ahead_log(connection: sqlite3.Connection, seconds: float) -> None:
    """For this SQLite does not wait by itself: while another connection is at the same, it says that it is locked."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            connection.execute("pragma journal_mode=wal")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(RETRY_SECONDS)


def render() -> str:
    """What `sqlite.sql` has to be, from a database that the migrations made."""
    engine = create_engine("sqlite://")
    try:
        with engine.begin() as connection:
            return _rendered(connection)
    finally:
        engine.dispose()


def _rendered(connection: Connection) -> str:
    _upgrade(connection, "head")
    tables = inspect(connection).get_table_names()
    # What a migration writes into a table would have to be here as well.
    rows = {name: connection.scalar(text(f"select count(*) from {name}")) for name in tables}  # noqa: S608
    if any(count for name, count in rows.items() if name != VERSIONS):
        raise RuntimeError(f"a migration leaves rows, which {SCHEMA} does not have: {rows}")
    made = connection.scalars(text("select sql from sqlite_master where sql is not null order by rowid"))
    statements = [f"-- Generated by `make docs` from the migrations; do not edit.\n-- revision {newest_revision()}"]
    statements += [statement for statement in made if "sqlite_sequence" not in statement]
    statements.append(f"insert into {VERSIONS} values ('{newest_revision()}')")  # noqa: S608
    return SEPARATOR.join(statements) + "\n"


def _upgrade(connection: Connection, revision: str) -> None:
    from alembic import command

    command.upgrade(_locked_config(connection), revision)


def _downgrade(connection: Connection, revision: str) -> None:
    from alembic import command

    command.downgrade(_locked_config(connection), revision)


def _locked_config(connection: Connection) -> "Config":
    """SQLite's lock was taken when the transaction began."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("select pg_advisory_xact_lock(:number)"), {"number": LOCK_NUMBER})
    config = alembic_config()
    config.attributes["connection"] = connection
    return config
