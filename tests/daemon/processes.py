"""What the kernel tells of processes, for tests that look for what is left."""

import os
from pathlib import Path

from tests.daemon.conftest import Daemon


def children_of(pid: int) -> list[int]:
    """The direct children of a process."""
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                stat = (directory / "stat").read_bytes()
            except OSError:
                continue
            if int(stat.rpartition(b")")[2].split()[1]) == pid:
                found.append(int(directory.name))
    return found


def is_alive(pid: int) -> bool:
    try:
        return b"Z" != (Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0])
    except OSError:
        return False


def descriptors(daemon: Daemon) -> int:
    """How many a daemon has open."""
    return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))
