"""`sandyard migrate`: bring the database to this release's schema, without starting anything."""

from typing import Any

import click

from sandyard.cli.lifetime import run
from sandyard.cli.options import settings_of, settings_options
from sandyard_api.database import open_database
from sandyard_migrations.upgrade import upgrade


@click.command()
@settings_options("data_dir", "database_url")
def migrate(**options: Any) -> None:
    """Create or upgrade the tables. `up` and `api` do this themselves at start; here it can be done before."""
    settings = settings_of(**options)
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    run(_migrate(settings.resolved_database_url()), log_level=settings.log_level)
    click.echo("the database is up to date")


async def _migrate(url: str) -> None:
    async with open_database(url) as database:
        await upgrade(database.engine)
