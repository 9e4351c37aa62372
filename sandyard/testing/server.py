"""A Sandyard for one test run, as a process: it writes where it is, and ends with the process that it is for.

`python -m sandyard.testing.server FOLDER OWNER_PID [--runtime R] [--isolation I] [--network N]`
"""

import argparse
from pathlib import Path

from sandyard.collector import importing


def main() -> None:
    """Serve until told to end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("owner_pid", type=int)
    for name in ("runtime", "isolation", "network"):
        parser.add_argument(f"--{name}")
    arguments = parser.parse_args()
    with importing():  # what is imported here is nearly all of the time until we are ready
        from sandyard.testing.serving import serve
    chosen = {name: getattr(arguments, name) for name in ("runtime", "isolation", "network")}
    serve(arguments.folder, arguments.owner_pid, chosen)


if __name__ == "__main__":
    main()
