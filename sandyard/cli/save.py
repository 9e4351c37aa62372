"""`sandyard save`: everything that a Sandyard holds, as one file."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import click

from sandyard.cli.lifetime import run
from sandyard.cli.options import settings_of, settings_options
from sandyard.ids import RandomIds
from sandyard.keeping import hold
from sandyard.runtimes import has_used_an_engine, open_containers
from sandyard.saving.archive import Manifest, Place
from sandyard.saving.archive import save as save_to
from sandyard.settings import Settings
from sandyard.wiring import keep_secrets
from sandyard_api.sealing.service import Seal


@click.command()
@settings_options("data_dir", "database_url")
@click.option("--without-files", is_flag=True, help="Save the rest where the files of sandboxes cannot be had.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def save(file: Path, without_files: bool, **options: Any) -> None:
    """Write database, command logs, volumes and the files of sandboxes to FILE. Sandyard must not be running.

    Sandboxes in containers that still run are held still meanwhile. FILE holds what opens these sandboxes: keep it as
    you keep keys.
    """
    settings = settings_of(**options)
    if not settings.data_dir.exists():
        raise click.ClickException(f"{settings.data_dir} does not exist: there is nothing to save")
    with hold(settings.data_dir):
        manifest = run(_save(settings, file.absolute(), without_files=without_files), log_level=settings.log_level)
    click.echo(f"saved {told(manifest)} to {file}")


async def _save(settings: Settings, file: Path, *, without_files: bool) -> Manifest:
    async with open_place(settings, containers=has_used_an_engine(settings) and not without_files) as place:
        return await save_to(file, place, may_miss_files=without_files)


@asynccontextmanager
async def open_place(settings: Settings, *, containers: bool) -> AsyncIterator[Place]:
    """The Sandyard of these settings, with what an engine holds of it where that is asked for."""
    seal = Seal(keep_secrets(settings, RandomIds()).encryption_key)
    async with AsyncExitStack() as stack:
        held = await stack.enter_async_context(open_containers(settings)) if containers else None
        yield Place(settings.data_dir, settings.resolved_database_url(), seal, held)


def told(manifest: Manifest) -> str:
    """What is in a file, in words."""
    count = len(manifest.sandboxes) + len(manifest.containers)
    return f"{sum(manifest.rows.values())} rows and the files of {count} sandboxes"
