"""Running the `sandyard` command as a user does, in an environment of its own."""

import os
import subprocess
import sys
from pathlib import Path

SANDYARD = str(Path(sys.executable).with_name("sandyard"))
SECONDS = 180
COMPILED = {"PYTHONDONTWRITEBYTECODE": ""}
"""Each command is a process of its own: compiling every module again for each would take most of the time."""


def clean_environment(**more: str) -> dict[str, str]:
    """Ours without what would choose a Sandyard, and `more`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("DAYTONA_", "SANDYARD_"))}
    return {**inherited, **COMPILED, **more}


def sandyard(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [SANDYARD, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env=clean_environment(**environment),
        check=False,
    )
