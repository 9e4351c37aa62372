"""A sandbox's door directory as containers need it: made anew at every start, open to whoever the image's user is."""

import contextlib
import os
import secrets
import shutil
from pathlib import Path

from sandyard_runner.doors import SECRET_NAME

DISCARDED = ".discarded-"
"""Prefix of directories that are no sandbox's any more."""


def prepare(directory: Path, secret: str) -> None:
    """Make the directory anew, with nothing in it but the secret. Blocks. Raises `OSError`.

    Never written into as it was: what user code left there may be a link.
    """
    discard(directory)
    directory.mkdir(parents=True)
    # The daemon runs as a user that only the image knows; on our side the parent directory keeps others out.
    directory.chmod(0o777)
    descriptor = os.open(directory / SECRET_NAME, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(secret)


def discard(directory: Path) -> None:
    """Remove it, or where the sandbox's root left what we may not touch, at least take it out of the way. Blocks."""
    if not os.path.lexists(directory):
        return
    aside = directory.with_name(f"{DISCARDED}{secrets.token_hex(8)}")
    directory.rename(aside)
    if aside.is_symlink() or not aside.is_dir():
        aside.unlink()
        return
    with contextlib.suppress(PermissionError):
        shutil.rmtree(aside)


def leftovers(doors_dir: Path) -> bool:
    """Whether there are discarded directories that only the engine can remove."""
    return any(doors_dir.glob(f"{DISCARDED}*"))
