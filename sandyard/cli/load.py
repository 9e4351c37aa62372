"""`sandyard load`: what `sandyard save` wrote, into an empty Sandyard."""

from pathlib import Path
from typing import Any

import click

from sandyard.cli.lifetime import run
from sandyard.cli.options import settings_of, settings_options
from sandyard.cli.save import places
from sandyard.keeping import hold
from sandyard.saving.archive import load as load_from


@click.command()
@settings_options("data_dir", "database_url")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
def load(file: Path, **options: Any) -> None:
    """Put what FILE holds into a data directory and a database without sandboxes; then start Sandyard on them."""
    settings = settings_of(**options)
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with hold(settings.data_dir):
        manifest = run(load_from(file, **places(settings)), log_level=settings.log_level)
    rows = sum(manifest.rows.values())
    click.echo(f"loaded {rows} rows and the files of {len(manifest.sandboxes)} sandboxes, saved {manifest.saved_at}")
