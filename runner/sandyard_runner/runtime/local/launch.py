"""Starting one sandbox's first process, in namespaces of its own or as a plain process."""

import asyncio
import contextlib
import marshal
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from sandyard_runner.errors import RuntimeFailure
from sandyard_runner.runtime.local.process import ProcessId, only_child
from sandyard_runner.runtime.local.tree import Account
from sandyard_runner.volumes import Place

ENTER = Path(__file__).with_name("enter.py")
FOLDER_ERROR = "FolderError: "
"""How `enter.py` begins what the sandbox itself has to answer for."""
NAMESPACES_TIMEOUT_SECONDS = 30.0
"""A fiftieth of a second is usual; on a machine that is busy otherwise or emulated it takes longer."""
REFUSED_HINT = (
    "This machine does not let Sandyard make namespaces ({reason}). Allow unprivileged user namespaces, run as root,"
    " use the docker runtime, or start with --isolation none, which runs sandboxes as plain processes, unprotected."
)


class Launch(msgspec.Struct, frozen=True):
    """Everything that is needed to start one run."""

    command: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    log: Path
    """Takes what the daemon itself prints."""
    die_with_parent: bool
    cgroup_procs: Sequence[str] = ()
    hostname: str = ""
    account: Account | None = None
    root: Path | None = None
    mounts: Sequence[Mapping[str, object]] = ()
    folders: Sequence[Place] = ()
    """What it shares with other sandboxes."""
    own_network: bool = True
    unreachable: Sequence[str] = msgspec.field(default_factory=tuple)
    root_overlay: Mapping[str, str] | None = None
    """Layers that the root stands on."""
    gate: int | None = None
    """A pipe: the command begins when a byte comes, and never when it closes before."""
    output: int | None = None
    """Takes what the command prints, instead of `log`."""


class Launched(msgspec.Struct, frozen=True):
    """A started run."""

    child: subprocess.Popen[bytes]
    monitor: ProcessId
    first: ProcessId


async def launch_namespaces(launch: Launch) -> Launched:
    """Start the first process in fresh namespaces; returns when they stand. Raises `RuntimeFailure`."""
    plan = _plan(launch)
    plan_file = os.memfd_create("plan")
    os.write(plan_file, marshal.dumps(plan))
    os.lseek(plan_file, 0, os.SEEK_SET)
    status_read, status_write = os.pipe()
    command = [
        *_parent_prefix(launch.die_with_parent, "KILL"),
        *_unshare(launch),
        _interpreter(),
        *("-I", "-S", str(ENTER), str(plan_file), str(status_write)),
    ]
    try:
        gate = () if launch.gate is None else (launch.gate,)
        child = _spawn(command, launch, keep=(plan_file, status_write, *gate), env={"PATH": os.defpath})
    except OSError as error:
        os.close(status_read)
        raise RuntimeFailure(REFUSED_HINT.format(reason=error)) from error
    finally:
        os.close(plan_file)
        os.close(status_write)
    try:
        said = await _read_status(status_read)
    except BaseException:
        child.kill()
        child.wait()
        raise
    first = only_child(child.pid)
    monitor = ProcessId.of(child.pid)
    process = ProcessId.of(first) if first is not None else None
    if said != "mounted" or monitor is None or process is None:
        child.kill()
        child.wait()
        if said.startswith(FOLDER_ERROR):
            raise RuntimeFailure(said.removeprefix(FOLDER_ERROR))
        raise RuntimeFailure(REFUSED_HINT.format(reason=said or _last_words(launch.log)))
    return Launched(child, monitor, process)


async def launch_plain(launch: Launch) -> Launched:
    """Start the first process as a plain one in a session of its own. Raises `RuntimeFailure`."""
    command = [*_parent_prefix(launch.die_with_parent, "TERM"), *launch.command]
    try:
        child = _spawn(command, launch, env=launch.env, cwd=launch.cwd)
    except OSError as error:
        raise RuntimeFailure(f"the sandbox's daemon could not be started: {error}") from error
    _move(child.pid, launch.cgroup_procs)
    process = ProcessId.of(child.pid)
    if process is None:
        child.wait()
        raise RuntimeFailure(f"the sandbox's daemon ended at once: {_last_words(launch.log)}")
    return Launched(child, process, process)


def _move(pid: int, groups: Sequence[str]) -> None:
    for procs in groups:
        with contextlib.suppress(OSError):  # a limit less, and the capability table says what holds in general
            Path(procs).write_text(str(pid))


def _plan(launch: Launch) -> dict[str, object]:
    account = launch.account
    if account is None or launch.root is None:
        raise ValueError("namespaces need an account and a root")
    as_root = os.geteuid() == 0
    return {
        "cgroups": list(launch.cgroup_procs),
        "own_network": launch.own_network,
        "unreachable": list(launch.unreachable),
        "hostname": launch.hostname[:64],
        "root": str(launch.root),
        "root_overlay": dict(launch.root_overlay) if launch.root_overlay else None,
        "gate": launch.gate,
        "mounts": [dict(mount) for mount in launch.mounts],
        "folders": [[place.root, list(place.parts), place.target, place.read_only] for place in launch.folders],
        "mask_proc": as_root,
        "identity_user_namespace": as_root,
        "uid": account.uid,
        "gid": account.gid,
        "groups": list(account.groups),
        "die_with_parent": launch.die_with_parent,
        "command": list(launch.command),
        "env": dict(launch.env),
        "cwd": launch.cwd,
    }


def _interpreter() -> str:
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def _unshare(launch: Launch) -> list[str]:
    account = launch.account
    namespaces = ["--mount", "--pid", "--ipc", "--uts", "--fork", *(["--net"] if launch.own_network else [])]
    if launch.die_with_parent:
        namespaces.append("--kill-child=KILL")
    if os.geteuid() != 0 and account is not None:
        # The capabilities are for the set-up; `enter.py` drops them.
        namespaces += ["--user", "--keep-caps", f"--map-user={account.uid}", f"--map-group={account.gid}"]
    return ["unshare", *namespaces, "--"]


def _parent_prefix(die_with_parent: bool, signal_name: str) -> list[str]:
    if die_with_parent and shutil.which("setpriv"):
        return ["setpriv", "--pdeathsig", signal_name]
    return []


def _spawn(
    command: Sequence[str],
    launch: Launch,
    *,
    env: Mapping[str, str],
    keep: Sequence[int] = (),
    cwd: str = "/",
) -> subprocess.Popen[bytes]:
    # On the loop's thread on purpose: the kernel ties "die with the parent" to the thread that started a process.
    with launch.log.open("wb") as log:
        output = log if launch.output is None else launch.output
        return subprocess.Popen(  # noqa: S603
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(env),
            cwd=cwd,
            pass_fds=keep,
            start_new_session=True,
        )


async def _read_status(descriptor: int) -> str:
    """What `enter.py` said first; empty when it ended without a word. Raises `RuntimeFailure`."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        async with asyncio.timeout(NAMESPACES_TIMEOUT_SECONDS):
            await readable.wait()
        return os.read(descriptor, 4096).decode(errors="replace").strip()
    except TimeoutError:
        problem = f"the sandbox's namespaces did not stand within {NAMESPACES_TIMEOUT_SECONDS:.0f} s"
        raise RuntimeFailure(problem, recoverable=True) from None
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _last_words(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        return "no reason given"
    return lines[-1] if lines else "no reason given"
