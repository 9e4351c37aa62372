"""What processes cost, from the kernel's own books."""

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Memory:
    """Of one process, in MB (10^6 bytes)."""

    resident: float
    proportional: float
    """Shared pages counted in parts."""
    private_dirty: float
    anonymous: float
    """Of no file; shared pages counted in parts."""

    @classmethod
    def of(cls, pid: int) -> "Memory":
        """Now. Raises `OSError` when there is no such process. *Source:* proc(5), `smaps_rollup`."""
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        found = {name: int(kilobytes) * 1024 / 1e6 for name, kilobytes in re.findall(r"^(\w+):\s+(\d+) kB", text, re.M)}
        return cls(found["Rss"], found["Pss"], found["Private_Dirty"], found["Pss_Anon"])


def descendants(pid: int) -> list[int]:
    """Every process below `pid`, itself left out."""
    below: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            below += [child, *descendants(child)]
    return below


def executable(pid: int) -> str:
    """The path of the process's program."""
    return str(Path(f"/proc/{pid}/exe").resolve())
