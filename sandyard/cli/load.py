"""`sandyard load`: what `sandyard save` wrote, into an empty Sandyard."""

from pathlib import Path
from typing import Any

import click

from sandyard.cli.lifetime import run
from sandyard.cli.options import settings_of, settings_options
from sandyard.cli.save import open_place, told
from sandyard.keeping import hold
from sandyard.saving.archive import Manifest, has_containers
from sandyard.saving.archive import load as load_from
from sandyard.settings import Settings


@click.command()
@settings_options("data_dir", "database_url")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
def load(file: Path, **options: Any) -> None:
    """Put what FILE holds into a data directory and a database without sandboxes; then start Sandyard on them."""
    settings = settings_of(**options)
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with hold(settings.data_dir):
        manifest = run(_load(settings, file), log_level=settings.log_level)
    click.echo(f"loaded {told(manifest)}, saved {manifest.saved_at}")


async def _load(settings: Settings, file: Path) -> Manifest:
    async with open_place(settings, containers=has_containers(file)) as place:
        return await load_from(file, place)
