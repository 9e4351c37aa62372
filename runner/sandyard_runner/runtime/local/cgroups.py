"""Memory, process and CPU limits for local sandboxes, where a control group can be had (version 1 or 2)."""

import contextlib
import errno
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

MOUNT = Path("/sys/fs/cgroup")
CONTROLLERS = ("memory", "pids", "cpu")
FREEZER = "freezer"
"""A controller of version 1; in version 2 every group can be frozen."""
ACCOUNTING = "cpuacct"
"""Another: what a sandbox has used of the processors. In version 2 `cpu` says it too."""
FREEZE_SECONDS = 10.0
MAX_PROCESSES = 4096
CPU_PERIOD_MICROSECONDS = 100_000
FORGOTTEN_AFTER_SECONDS = 600.0
"""A group this old is not one that another Sandyard has just made and not yet filled."""
REMOVE_ATTEMPTS = 50
REMOVE_PAUSE_SECONDS = 0.01
FREEZE_PAUSE_SECONDS = 0.001


class Group(msgspec.Struct, frozen=True):
    """The control group of one sandbox: one directory (version 2), or one per controller (version 1)."""

    directories: tuple[Path, ...]

    def procs(self) -> list[str]:
        """Files to which a process writes `0` to enter."""
        return [str(directory / "cgroup.procs") for directory in self.directories]

    def shown(self) -> list[tuple[str, str]]:
        """`(directory, place inside)` by which a sandbox sees its own group, where containers see theirs."""
        if (self.directories[0] / "cgroup.controllers").exists():
            return [(str(self.directories[0]), str(MOUNT))]
        return [(str(each), str(MOUNT / each.relative_to(MOUNT).parts[0])) for each in self.directories]

    def members(self) -> set[int]:
        """Process ids in the group."""
        found: set[int] = set()
        for directory in self.directories:
            with contextlib.suppress(OSError):
                found.update(int(line) for line in (directory / "cgroup.procs").read_text().split())
        return found

    def oom_kills(self) -> int:
        """How many processes the kernel killed here for want of memory."""
        for directory in self.directories:
            for name in ("memory.events", "memory.oom_control"):
                with contextlib.suppress(OSError):
                    fields = dict(line.split() for line in (directory / name).read_text().splitlines())
                    return int(fields.get("oom_kill", 0))
        return 0

    @property
    def can_freeze(self) -> bool:
        """Whether the kernel can hold its processes still."""
        return self._freezer() is not None

    @property
    def is_frozen(self) -> bool:
        """Whether somebody asked for that."""
        freezer = self._freezer()
        return freezer is not None and freezer.read_text().strip() not in ("0", "THAWED")

    def freeze(self) -> None:
        """Hold every process still; returns when none runs. Blocks for a moment. Raises `OSError`, `TimeoutError`."""
        freezer = self._freezer()
        if freezer is None:
            raise FileNotFoundError("this control group cannot be frozen")
        deadline = time.monotonic() + FREEZE_SECONDS
        unified = freezer.name == "cgroup.freeze"
        freezer.write_text("1" if unified else "FROZEN")
        done = (freezer.with_name("cgroup.events"), "frozen 1") if unified else (freezer, "FROZEN")
        while done[1] not in done[0].read_text():
            if time.monotonic() > deadline:
                self.thaw()
                raise TimeoutError("a process of the sandbox cannot be frozen")
            time.sleep(FREEZE_PAUSE_SECONDS)  # the kernel tells nobody when it has caught the last one

    def thaw(self) -> None:
        """Let them run on; a group that is not frozen or not there is success."""
        freezer = self._freezer()
        if freezer is not None:
            with contextlib.suppress(FileNotFoundError):
                freezer.write_text("0" if freezer.name == "cgroup.freeze" else "THAWED")

    def _freezer(self) -> Path | None:
        files = (directory / name for directory in self.directories for name in ("cgroup.freeze", "freezer.state"))
        return next((file for file in files if file.exists()), None)

    def remove(self) -> None:
        """Remove the group once its last processes have left it; already gone is success. Blocks for a moment."""
        for directory in self.directories:
            _remove(directory)


class Limits:
    """Makes groups under the nearest ancestor of our own that we may write."""

    def __init__(self, parents: dict[str, Path], *, unified: bool) -> None:
        self._parents = parents
        self._unified = unified

    @property
    def enforced(self) -> frozenset[str]:
        """Controllers whose limits hold: of `memory`, `pids`, `cpu`."""
        return frozenset(self._parents)

    def make(self, name: str, *, memory_bytes: int, cpus: int) -> Group | None:
        """A fresh group with limits, or `None` where there can be none. Raises `OSError`."""
        if not self._parents:
            return None
        directories = tuple(dict.fromkeys(parent / f"sandyard-{name}" for parent in self._parents.values()))
        for directory in directories:
            directory.mkdir(exist_ok=True)
        for controller, parent in self._parents.items():
            self._write(controller, parent / f"sandyard-{name}", memory_bytes=memory_bytes, cpus=cpus)
        return Group(directories)

    def change(self, name: str, *, memory_bytes: int, cpus: int) -> None:
        """Give a group other limits. Raises `OSError`, also for less memory than is in use."""
        for controller in ("memory", "cpu"):
            if (parent := self._parents.get(controller)) is not None:
                self._write(controller, parent / f"sandyard-{name}", memory_bytes=memory_bytes, cpus=cpus)

    def sweep(self) -> None:
        """Remove empty groups that nobody remembers, such as those of a data directory that was deleted."""
        oldest = time.time() - FORGOTTEN_AFTER_SECONDS
        for parent in set(self._parents.values()):
            for directory in parent.glob("sandyard-*"):
                with contextlib.suppress(OSError):  # one that is in use cannot be removed
                    if directory.stat().st_mtime < oldest:
                        directory.rmdir()

    def _write(self, controller: str, directory: Path, *, memory_bytes: int, cpus: int) -> None:
        quota = cpus * CPU_PERIOD_MICROSECONDS
        if self._unified:
            values = {
                "memory": [("memory.max", str(memory_bytes)), ("memory.swap.max", "0")],
                "pids": [("pids.max", str(MAX_PROCESSES))],
                "cpu": [("cpu.max", f"{quota} {CPU_PERIOD_MICROSECONDS}")],
            }
        else:
            values = {
                "memory": [
                    ("memory.limit_in_bytes", str(memory_bytes)),
                    ("memory.memsw.limit_in_bytes", str(memory_bytes)),
                ],
                "pids": [("pids.max", str(MAX_PROCESSES))],
                "cpu": [("cpu.cfs_quota_us", str(quota))],
                FREEZER: [],
                ACCOUNTING: [],
            }
        # Swap accounting may be switched off.
        files = [(directory / name, value) for name, value in values[controller] if (directory / name).exists()]
        try:
            _write_all(files)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            _write_all(files[::-1])  # version 1 wants the higher of memory and memory with swap written first


def _write_all(files: Sequence[tuple[Path, str]]) -> None:
    for path, value in files:
        path.write_text(value)


def _remove(directory: Path) -> None:
    for _ in range(REMOVE_ATTEMPTS):
        try:
            directory.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(REMOVE_PAUSE_SECONDS)  # a dead process stays counted for a moment, and nobody tells when it goes


def find_limits() -> Limits:
    """The limits this process may set; possibly none."""
    own = dict(_own_groups())
    if (MOUNT / "cgroup.controllers").exists():
        return _find_unified(MOUNT / own.get("", "/").lstrip("/"))
    parents = {}
    for controller in (*CONTROLLERS, FREEZER, ACCOUNTING):
        parent = MOUNT / controller / own.get(controller, "/").lstrip("/")
        if parent.is_dir() and _can_make_groups(parent):
            parents[controller] = parent
    return Limits(parents, unified=False)


def _own_groups() -> Iterator[tuple[str, str]]:
    """`(controller, path)` pairs; version 2 has the empty controller."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            for controller in controllers.split(","):
                yield controller, path


def _find_unified(own: Path) -> Limits:
    # A group that holds processes cannot hand controllers down, so ours will not do; an ancestor of it may.
    for candidate in (own, *own.parents):
        if not candidate.is_relative_to(MOUNT):
            break
        with contextlib.suppress(OSError):
            handed_down = set((candidate / "cgroup.subtree_control").read_text().split())
            usable = {controller: candidate for controller in CONTROLLERS if controller in handed_down}
            if usable and os.access(candidate / "cgroup.procs", os.W_OK) and _can_make_groups(candidate):
                return Limits(usable, unified=True)
    return Limits({}, unified=True)


def _can_make_groups(parent: Path) -> bool:
    trial = parent / f"sandyard-trial-{os.getpid()}"
    try:
        trial.mkdir()
        trial.rmdir()
    except OSError:
        return False
    return True
