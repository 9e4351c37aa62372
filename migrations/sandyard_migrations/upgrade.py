"""Bringing a database to the newest schema, from inside the process that is about to use it.

Alembic is imported where there is something to do: it takes a tenth of a second, and most starts find nothing.
"""

import asyncio
import re
from importlib.resources import files
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine

if TYPE_CHECKING:
    from alembic.config import Config

LOCK_NUMBER = 0x5A4D_7961_7264
"""Of the advisory lock that lets one process at a time upgrade a PostgreSQL database."""
UPGRADE_TIMEOUT_SECONDS = 300.0
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
    """Upgrade under a lock, so that replicas may start at once. Repeating it changes nothing."""
    async with asyncio.timeout(UPGRADE_TIMEOUT_SECONDS), engine.begin() as connection:
        if revision != "head" or await connection.run_sync(_current) != newest_revision():
            await connection.run_sync(_upgrade, revision)


async def downgrade(engine: AsyncEngine, revision: str = "base") -> None:
    """Go back to an older schema."""
    async with asyncio.timeout(UPGRADE_TIMEOUT_SECONDS), engine.begin() as connection:
        await connection.run_sync(_downgrade, revision)


def _current(connection: Connection) -> str | None:
    """The revision a database has; `None` for an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(text("select version_num from alembic_version"))
    return found


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
