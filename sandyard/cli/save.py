"""`sandyard save`: everything that a Sandyard holds, as one file."""

from pathlib import Path
from typing import Any

import click

from sandyard.cli.lifetime import run
from sandyard.cli.options import settings_of, settings_options
from sandyard.ids import RandomIds
from sandyard.keeping import hold
from sandyard.runtimes import holds_containers
from sandyard.saving.archive import save as save_to
from sandyard.settings import Settings
from sandyard.wiring import keep_secrets
from sandyard_api.sealing.service import Seal


@click.command()
@settings_options("data_dir", "database_url")
@click.option(
    "--without-files", is_flag=True, help="Save although sandboxes are in containers, whose files stay there."
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def save(file: Path, without_files: bool, **options: Any) -> None:
    """Write database, command logs and the files of local sandboxes to FILE. Sandyard must not be running.

    FILE holds what opens these sandboxes: keep it as you keep keys.
    """
    settings = settings_of(**options)
    if not settings.data_dir.exists():
        raise click.ClickException(f"{settings.data_dir} does not exist: there is nothing to save")
    with hold(settings.data_dir):
        if not without_files and run(holds_containers(settings), log_level=settings.log_level):
            raise click.ClickException(
                "there are sandboxes in containers, and their files cannot be saved; --without-files saves the rest"
            )
        manifest = run(
            save_to(file.absolute(), **places(settings)),
            log_level=settings.log_level,
        )
    rows = sum(manifest.rows.values())
    click.echo(f"saved {rows} rows and the files of {len(manifest.sandboxes)} sandboxes to {file}")


def places(settings: Settings) -> dict[str, Any]:
    """What `save` and `load` are told of a Sandyard."""
    return {
        "data_dir": settings.data_dir,
        "database_url": settings.resolved_database_url(),
        "seal": Seal(keep_secrets(settings, RandomIds()).encryption_key),
    }
