"""Bringing a database to the newest schema, from inside the process that is about to use it."""

import asyncio

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

LOCK_NUMBER = 0x5A4D_7961_7264
"""Of the advisory lock that lets one process at a time upgrade a PostgreSQL database."""
UPGRADE_TIMEOUT_SECONDS = 300.0


def alembic_config() -> Config:
    """The same in a checkout and in a wheel: the scripts are found as a package."""
    config = Config()
    config.set_main_option("script_location", "sandyard_migrations:")
    config.set_main_option("path_separator", "os")
    return config


def newest_revision() -> str | None:
    """The revision that `upgrade` leads to."""
    return ScriptDirectory.from_config(alembic_config()).get_current_head()


async def upgrade(engine: AsyncEngine, revision: str = "head") -> None:
    """Upgrade under a lock, so that replicas may start at once. Repeating it changes nothing."""
    async with asyncio.timeout(UPGRADE_TIMEOUT_SECONDS), engine.begin() as connection:
        await connection.run_sync(_upgrade, revision)


async def downgrade(engine: AsyncEngine, revision: str = "base") -> None:
    """Go back to an older schema."""
    async with asyncio.timeout(UPGRADE_TIMEOUT_SECONDS), engine.begin() as connection:
        await connection.run_sync(_downgrade, revision)


def _upgrade(connection: Connection, revision: str) -> None:
    command.upgrade(_locked_config(connection), revision)


def _downgrade(connection: Connection, revision: str) -> None:
    command.downgrade(_locked_config(connection), revision)


def _locked_config(connection: Connection) -> Config:
    """SQLite's lock was taken when the transaction began."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("select pg_advisory_xact_lock(:number)"), {"number": LOCK_NUMBER})
    config = alembic_config()
    config.attributes["connection"] = connection
    return config
