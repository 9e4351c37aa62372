"""The processes of one sandbox's run: starting, watching, ending, and finding them again after a restart."""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import structlog

from sandyard_runner.runtime.local.cgroups import Group

MARKER = "SANDBOX_RUN_ID"
"""Environment variable of every process of a run without namespaces; finds those that left their parent.

Not one of ours by its name: the daemon keeps those from what it starts."""
KILL_SECONDS = 5.0
"""Less than what the runtime waits for a sandbox to be gone."""
KILL_PAUSE_SECONDS = 0.002
STOP_ROUNDS = 1000
STOP_PAUSE_SECONDS = 0.002

log = structlog.get_logger(__name__)


class ProcessId(msgspec.Struct, frozen=True):
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

    def is_stopped(self) -> bool:
        """Whether a signal holds it still."""
        return self.is_alive() and _state(self.pid) in ("T", "t")

    def signal(self, number: int) -> None:
        """Send a signal; already gone is success."""
        if self.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class Run(msgspec.Struct, frozen=True):
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
        scratch.write_bytes(msgspec.json.encode(self))
        scratch.rename(path)

    @classmethod
    def load(cls, path: Path) -> "Run | None":
        """The run that was written down, or `None` when there is none that can be read."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except (OSError, ValueError):
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


class Running(msgspec.Struct):
    """A run under our eyes."""

    run: Run
    watch: Watch
    group: Group | None
    helper: subprocess.Popen[bytes] | None = None
    is_stopping: bool = False
    is_paused: bool = False
    stopped: list[ProcessId] = msgspec.field(default_factory=list)
    """What a pause without a control group has stopped."""
    reaper: asyncio.Task[None] | None = None
    gone: asyncio.Event | None = None


def only_child(pid: int) -> int | None:
    """The process that `pid` has forked, or `None`."""
    with contextlib.suppress(OSError, ValueError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if children:
            return int(children[0])
    return None


def kill_marked(run_id: str) -> None:
    """Kill every process that carries `run_id` in its environment, also those started meanwhile. Blocks for a moment.

    What the kernel does not let go in time is told in the log.
    """
    wanted = f"{MARKER}={run_id}".encode()
    deadline = time.monotonic() + KILL_SECONDS
    while found := _marked(wanted):
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            log.warning("processes_left", run=run_id, pids=found[:20])
            return
        time.sleep(KILL_PAUSE_SECONDS)


def stop_all(first: ProcessId, run_id: str, *, in_namespace: bool) -> list[ProcessId]:
    """Stop every process of a run by signal, also those started meanwhile, and give those that ran until then.

    Blocks for a moment. A process that already was stopped is not among them.
    """
    stopped: dict[int, ProcessId] = {}
    for _ in range(STOP_ROUNDS):
        found = _in_namespace(first.pid) if in_namespace else _marked(f"{MARKER}={run_id}".encode())
        moving = [pid for pid in found if _state(pid) not in ("T", "t", "Z", "X", None)]
        if not moving:
            return list(stopped.values())
        for pid in moving:
            process = ProcessId.of(pid)
            if process is not None:
                stopped.setdefault(pid, process)
                process.signal(signal.SIGSTOP)
        time.sleep(STOP_PAUSE_SECONDS)  # one in the kernel stops when it leaves it, and nobody tells
    for process in stopped.values():
        process.signal(signal.SIGCONT)
    raise TimeoutError("a process of the sandbox cannot be stopped")


def continue_all(first: ProcessId, run_id: str, stopped: Sequence[ProcessId], *, in_namespace: bool) -> None:
    """Let them run on; where nobody remembers which we stopped, every one."""
    chosen = list(stopped)
    if not chosen:
        found = _in_namespace(first.pid) if in_namespace else _marked(f"{MARKER}={run_id}".encode())
        chosen = [process for pid in found if (process := ProcessId.of(pid)) is not None]
    for process in chosen:
        process.signal(signal.SIGCONT)


def _in_namespace(first: int) -> list[int]:
    """Processes of the namespace that `first` is process 1 of."""
    found = []
    with contextlib.suppress(OSError):
        wanted = os.readlink(f"/proc/{first}/ns/pid")
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{entry.name}/ns/pid") == wanted:
                        found.append(int(entry.name))
    return found


def _state(pid: int) -> str | None:
    """The letter of proc_pid_stat(5), or `None` where there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text[text.rindex(")") + 2]


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
