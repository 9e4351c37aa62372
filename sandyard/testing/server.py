"""A Sandyard for one test run, as a process: it writes where it is, and ends with the process that it is for.

`python -m sandyard.testing.server FOLDER OWNER_PID [--runtime R] [--isolation I] [--network N]`
"""

import argparse
import subprocess
import sys
from pathlib import Path

from sandyard.starting import importing
from sandyard.testing import DATA


def main() -> None:
    """Serve until told to end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("owner_pid", type=int)
    for name in ("runtime", "isolation", "network"):
        parser.add_argument(f"--{name}")
    arguments = parser.parse_args()
    chosen = {name: getattr(arguments, name) for name in ("runtime", "isolation", "network")}
    # Importing is most of the time until we are ready: by then another processor has made what the runtime waits for.
    data = arguments.folder / DATA
    data.mkdir(mode=0o700, exist_ok=True)
    building = [sys.executable, "-m", "sandyard_runner.daemon_bundle", str(data / "bundles")]
    with subprocess.Popen(building, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):  # noqa: S603
        with importing():
            from sandyard.testing.serving import serve
        serve(arguments.folder, arguments.owner_pid, chosen)


if __name__ == "__main__":
    main()
