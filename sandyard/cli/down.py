"""`sandyard down`: end the Sandyard of a data directory and remove what it made."""

import contextlib
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import click

from sandyard.cli.lifetime import run, say
from sandyard.cli.options import settings_of, settings_options
from sandyard.keeping import hold, is_held, read_running
from sandyard.runtimes import remove_everything
from sandyard.settings import Settings

WAIT_SECONDS = 60
STATE = (
    "sandboxes",
    "doors",
    "bundles",
    "objects",
    "registry",
    "builds",
    "volumes",
    "images",
    "egress",
    "sandyard.db",
    "sandyard.db-wal",
    "sandyard.db-shm",
    "running.json",
)
"""What we made in the data directory, beside the keys."""
KEYS = ("api-key", "internal-token", "encryption-key", "ssh-host-key", "installation")


@click.command()
@settings_options("data_dir")
@click.option("--keys", is_flag=True, help="Remove the keys as well: clients need a new one afterwards.")
def down(keys: bool, **options: Any) -> None:
    """End the running Sandyard and remove its sandboxes, containers, networks and state; nothing else."""
    settings = settings_of(**options)
    if not settings.data_dir.exists():
        say(f"{settings.data_dir} does not exist: nothing to do")
        return
    _end(settings)
    with hold(settings.data_dir):
        for line in run(remove_everything(settings), log_level=settings.log_level):
            say(line)
        for name in STATE + (KEYS if keys else ()):
            _remove(settings.data_dir / name)


def _end(settings: Settings) -> None:
    """Tell the process to end and wait until it let go of the data directory."""
    running = read_running(settings.data_dir)
    if running is None or not is_held(settings.data_dir):
        return
    say(f"ending process {running.pid}")
    with contextlib.suppress(ProcessLookupError):
        os.kill(running.pid, signal.SIGTERM)
    deadline = time.monotonic() + WAIT_SECONDS
    while is_held(settings.data_dir):
        # The kernel has no event for "the lock is free" that comes with a deadline.
        if time.monotonic() > deadline:
            raise click.ClickException(f"process {running.pid} did not end within {WAIT_SECONDS} s")
        time.sleep(0.05)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
