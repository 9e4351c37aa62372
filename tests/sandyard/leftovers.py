"""What a Sandyard has left behind: processes and mounts that have to do with its directory."""

import os
from pathlib import Path


def processes_of(folder: Path) -> list[str]:
    """Every process that runs in, with or for `folder`, as `pid: command line`; ourselves left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        told = [_read(entry / name) for name in ("cmdline", "environ", "mountinfo", "cgroup")]
        if any(os.fsencode(folder) in text for text in told) and not _is_over(entry):
            found.append(f"{entry.name}: {told[0].replace(bytes(1), b' ').decode(errors='replace')}")
    return found


def mounts_of(folder: Path) -> list[str]:
    """Every line of our own mount table that names `folder`."""
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(folder) in line]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # it ended meanwhile, or is another user's


def _is_over(process: Path) -> bool:
    state = _read(process / "stat").rpartition(b")")[2].split()
    return not state or state[0] in (b"Z", b"X")
