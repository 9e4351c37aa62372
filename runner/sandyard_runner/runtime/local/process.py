"""The processes of one sandbox's run: starting, watching, ending, and finding them again after a restart."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

MARKER = "SANDBOX_RUN_ID"
"""Environment variable of every process of a run without namespaces; finds those that left their parent.

Not one of ours by its name: the daemon keeps those from what it starts."""
KILL_ROUNDS = 50


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process that a reused number cannot be mistaken for."""

    pid: int
    started: str
    """Clock ticks after boot, field 22 of proc_pid_stat(5)."""

    @classmethod
    def of(cls, pid: int) -> "ProcessId | None":
        """The process of that number now, or `None`."""
        started = _start_time(pid)
        return None if started is None else cls(pid, started)

    def is_alive(self) -> bool:
        """Whether this very process still runs (a zombie does not)."""
        return _start_time(self.pid) == self.started

    def signal(self, number: int) -> None:
        """Send a signal; already gone is success."""
        if self.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


@dataclass(frozen=True, slots=True)
class Run:
    """What is written down of a run, so that the next process of ours can find it."""

    run_id: str
    monitor: ProcessId
    """Ends when the sandbox ends."""
    first: ProcessId
    """The daemon: process 1 inside, or the same as `monitor` without namespaces."""
    helpers: tuple[ProcessId, ...] = ()
    cgroup: tuple[str, ...] = ()

    def save(self, path: Path) -> None:
        scratch = path.with_suffix(".new")
        scratch.write_text(json.dumps(asdict(self)))
        scratch.rename(path)

    @classmethod
    def load(cls, path: Path) -> "Run | None":
        """The run that was written down, or `None` when there is none that can be read."""
        try:
            fields = json.loads(path.read_text())
            return cls(
                run_id=fields["run_id"],
                monitor=ProcessId(**fields["monitor"]),
                first=ProcessId(**fields["first"]),
                helpers=tuple(ProcessId(**helper) for helper in fields["helpers"]),
                cgroup=tuple(fields["cgroup"]),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None


class Watch:
    """Waits for the end of one process by its pidfd, child of ours or not."""

    def __init__(self, process: ProcessId, child: subprocess.Popen[bytes] | None) -> None:
        self._child = child
        self.ended = asyncio.Event()
        self.exit_code: int | None = None
        self._loop = asyncio.get_running_loop()
        self._descriptor: int | None = None
        try:
            self._descriptor = os.pidfd_open(process.pid)
        except ProcessLookupError:
            self._finish()
            return
        if not process.is_alive() and child is None:
            self._finish()  # the number had been given to another process
            return
        self._loop.add_reader(self._descriptor, self._finish)

    def _finish(self) -> None:
        self.close()
        if self._child is not None:
            code = self._child.wait()
            self.exit_code = 128 - code if code < 0 else code
        self.ended.set()

    def close(self) -> None:
        """Stop watching; the process stays as it is."""
        if self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None


def only_child(pid: int) -> int | None:
    """The process that `pid` has forked, or `None`."""
    with contextlib.suppress(OSError, ValueError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if children:
            return int(children[0])
    return None


def kill_marked(run_id: str, spare: Sequence[int] = ()) -> None:
    """Kill every process that carries `run_id` in its environment, also those started meanwhile."""
    wanted = f"{MARKER}={run_id}".encode()
    for _ in range(KILL_ROUNDS):
        found = [pid for pid in _marked(wanted) if pid not in spare]
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not found:
            return


def _marked(wanted: bytes) -> list[int]:
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if wanted in Path(f"/proc/{entry.name}/environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def _start_time(pid: int) -> str | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in ("Z", "X") else fields[19]
