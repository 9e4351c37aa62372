"""Where this process's control groups are, version 1, version 2 or both, and the numbers in them.

*Source:* cgroups(7), the kernel's cgroup-v1 and cgroup-v2 documents, proc(5) for mountinfo.
"""

import os
from collections.abc import Iterator


class Groups:
    """Directories by controller; version 2 has all its controllers in one."""

    def __init__(self, directories: dict[str, str], unified: str | None) -> None:
        self._directories = directories
        self._unified = unified

    @classmethod
    def of_this_process(cls, proc: str = "/proc/self") -> "Groups":
        """What can be seen from here; possibly nothing."""
        own = dict(_memberships(_read(f"{proc}/cgroup")))
        directories: dict[str, str] = {}
        unified = None
        for kind, root, place, controllers in _mounts(_read(f"{proc}/mountinfo")):
            if kind == "cgroup2":
                unified = _directory(place, root, own.get("", "/"))
                continue
            for controller in controllers:
                if controller in own:
                    directories[controller] = _directory(place, root, own[controller])
        return cls(directories, unified)

    def cpu_limit(self) -> float | None:
        """Processors' worth of time it may use; `None` without a limit."""
        words = self._unified_text("cpu.max").split()
        quota = _number(words[0]) if words else self._number("cpu", "cpu.cfs_quota_us")
        period = _number(words[1]) if len(words) > 1 else self._number("cpu", "cpu.cfs_period_us")
        return quota / period if quota and period and quota > 0 else None

    def cpu_used(self) -> float | None:
        """Seconds of processor time so far; `None` where nobody counts."""
        used = _field(self._unified_text("cpu.stat"), "usage_usec")
        nanoseconds = self._number("cpuacct", "cpuacct.usage")
        if nanoseconds is not None:
            return nanoseconds / 1e9
        return None if used is None else used / 1e6

    def memory_limit(self) -> int | None:
        """Bytes."""
        limit = self._number("memory", "memory.limit_in_bytes")
        return limit if limit is not None else _number(self._unified_text("memory.max"))

    def memory_used(self) -> tuple[int, int] | None:
        """Bytes in use without what the kernel can take back at once, and bytes of files it keeps."""
        usage = self._number("memory", "memory.usage_in_bytes")
        if usage is not None:
            stat, names = self._text("memory", "memory.stat"), ("total_inactive_file", "total_cache")
        else:
            usage = _number(self._unified_text("memory.current"))
            stat, names = self._unified_text("memory.stat"), ("inactive_file", "file")
        if usage is None:
            return None
        inactive, cache = (_field(stat, name) or 0 for name in names)
        return max(0, usage - inactive), cache

    def _number(self, controller: str, name: str) -> int | None:
        return _number(self._text(controller, name))

    def _text(self, controller: str, name: str) -> str:
        directory = self._directories.get(controller)
        return _read(f"{directory}/{name}") if directory else ""

    def _unified_text(self, name: str) -> str:
        return _read(f"{self._unified}/{name}") if self._unified else ""


def _memberships(text: str) -> Iterator[tuple[str, str]]:
    """`(controller, path)` pairs; version 2 has the empty controller."""
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            yield controller, path


def _mounts(text: str) -> Iterator[tuple[str, str, str, list[str]]]:
    """Kind, root of what is mounted, place, controllers of each mounted hierarchy."""
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        words, rest = before.split(), after.split()
        if len(words) > 4 and len(rest) > 2 and rest[0] in ("cgroup", "cgroup2"):
            yield rest[0], words[3], words[4], rest[2].split(",")


def _directory(place: str, root: str, path: str) -> str:
    """A container sees its own group mounted as the whole hierarchy, and its path as the machine names it."""
    if path == root or not path.startswith(root.rstrip("/") + "/"):
        return place
    inside = os.path.join(place, path[len(root.rstrip("/")) :].lstrip("/"))
    return inside if os.path.isdir(inside) else place


def _read(path: str) -> str:
    """Empty where there is no such file."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _number(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.removeprefix("-").isdigit() else None


def _field(text: str, name: str) -> int | None:
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return _number(value)
    return None
