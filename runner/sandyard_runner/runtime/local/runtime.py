"""`Runtime` over namespaces or plain processes of this machine. See `options.Isolation` for the two forms."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from sandyard_api.jobs.wire import SandboxSpec
from sandyard_runner.daemon_bundle import Bundle, ensure_bundle
from sandyard_runner.doors import door_path, is_well, prepare_door, remove_door, wait_until_daemon_answers
from sandyard_runner.errors import DaemonUnreachable, NotPresent, RuntimeFailure, Unsupported
from sandyard_runner.runtime.contract import Present, PresentState, ProgressReport, RuntimeEvent
from sandyard_runner.runtime.local import network
from sandyard_runner.runtime.local.capabilities import capability_table
from sandyard_runner.runtime.local.cgroups import Group, Limits, find_limits
from sandyard_runner.runtime.local.launch import REFUSED_HINT, Launch, Launched, launch_namespaces, launch_plain
from sandyard_runner.runtime.local.options import Isolation, LocalOptions, Network
from sandyard_runner.runtime.local.process import MARKER, ProcessId, Run, Watch, kill_marked
from sandyard_runner.runtime.local.tree import (
    USER,
    Account,
    Tree,
    UnknownUser,
    find_account,
    hidden_paths,
    sandbox_passwd,
)
from sandyard_runner.wire import Capability

BUNDLE_MOUNT = "/opt/sandyard"
DOOR_MOUNT = "/run/sandyard"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
KILL_TIMEOUT_SECONDS = 10.0
MEBIBYTE = 1 << 20
RUN_FILE = "run.json"
SPEC_FILE = "spec.json"

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Running:
    """A run under our eyes."""

    run: Run
    watch: Watch
    group: Group | None
    helper: subprocess.Popen[bytes] | None = None
    is_stopping: bool = False
    reaper: asyncio.Task[None] | None = None
    gone: asyncio.Event | None = None


class LocalRuntime:
    """See `open_local_runtime`."""

    name = "local"

    def __init__(self, options: LocalOptions, bundle: Bundle, *, limits: Limits, uplink: network.Uplink | None) -> None:
        self._options = options
        self._bundle = bundle
        self._limits = limits
        self._uplink = uplink
        self._hidden: list[str] = []
        self._running: dict[str, _Running] = {}
        self._reasons: dict[str, tuple[int | None, str]] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._listeners: set[asyncio.Queue[RuntimeEvent]] = set()

    def capabilities(self) -> Sequence[Capability]:
        return capability_table(self._options, self._limits.enforced, self._uplink)

    def door(self, sandbox_id: str) -> Path:
        return door_path(self._options.doors_dir, sandbox_id)

    async def ensure_image(self, image: str | None, report: ProgressReport) -> None:
        if image is not None:
            raise Unsupported(
                f"the local runtime has no images, so {image} cannot be used: its sandboxes show this machine's own"
                " programs. Start Sandyard with --runtime docker for images."
            )

    async def create(self, spec: SandboxSpec) -> None:
        await self.ensure_image(spec.image, lambda _: None)
        async with self._locks[spec.sandbox_id]:
            self._account(spec.user)
            await asyncio.to_thread(self._lay_out, spec)

    async def start(self, spec: SandboxSpec) -> None:
        async with self._locks[spec.sandbox_id]:
            if not (self._base(spec.sandbox_id) / SPEC_FILE).exists():
                raise NotPresent(spec.sandbox_id)
            if spec.sandbox_id in self._running:
                if await is_well(self.door(spec.sandbox_id), spec.door_secret):
                    return
                await self._stop(spec.sandbox_id, force=True, grace_seconds=0)
            try:
                await self._start(spec)
            except RuntimeFailure:
                await self._stop(spec.sandbox_id, force=True, grace_seconds=0)
                raise
            except OSError as error:
                await self._stop(spec.sandbox_id, force=True, grace_seconds=0)
                raise RuntimeFailure(f"the sandbox could not be started: {error}") from error

    async def stop(self, sandbox_id: str, *, force: bool = False, grace_seconds: float = 5.0) -> None:
        async with self._locks[sandbox_id]:
            await self._stop(sandbox_id, force=force, grace_seconds=grace_seconds)

    async def remove(self, sandbox_id: str) -> None:
        async with self._locks[sandbox_id]:
            await self._stop(sandbox_id, force=True, grace_seconds=0)
            await asyncio.to_thread(self._delete, sandbox_id)
            self._reasons.pop(sandbox_id, None)
        self._locks.pop(sandbox_id, None)

    async def present(self) -> Sequence[Present]:
        found = []
        for base in sorted(self._sandboxes().iterdir()):
            if (base / SPEC_FILE).exists():
                exit_code, reason = self._reasons.get(base.name, (None, ""))
                if base.name in self._running:
                    found.append(Present(base.name, PresentState.RUNNING))
                else:
                    found.append(Present(base.name, PresentState.STOPPED, exit_code, reason))
        return found

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[RuntimeEvent]]:
        queue: asyncio.Queue[RuntimeEvent] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            yield _drain(queue)
        finally:
            self._listeners.discard(queue)

    async def close(self) -> None:
        reapers = []
        for running in self._running.values():
            running.watch.close()
            if running.reaper is not None:
                running.reaper.cancel()
                reapers.append(running.reaper)
        await asyncio.gather(*reapers, return_exceptions=True)
        self._running.clear()

    async def adopt(self) -> None:
        """Take over what an earlier process of ours left: sandboxes that serve on, and remains to clear away."""
        self._sandboxes().mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._is_isolated and os.geteuid() == 0:
            self._hidden = await asyncio.to_thread(hidden_paths)
        for base in self._sandboxes().iterdir():
            run = Run.load(base / RUN_FILE)
            if not (base / SPEC_FILE).exists():
                await asyncio.to_thread(self._delete, base.name)
            elif run is not None and run.first.is_alive() and run.monitor.is_alive() and self._options.keep_running:
                group = Group(tuple(Path(path) for path in run.cgroup)) if run.cgroup else None
                self._supervise(base.name, _Running(run, Watch(run.monitor, None), group))
                log.info("sandbox_adopted", sandbox_id=base.name)
            elif run is not None:
                await asyncio.to_thread(self._clear_away, base.name, run, None)

    async def probe(self) -> None:
        """Start and end a trial sandbox, and find the way out that works. Raises `RuntimeFailure`."""
        if not self._is_isolated:
            return
        trial = f"probe-{uuid.uuid4().hex[:12]}"
        spec = SandboxSpec(sandbox_id=trial, organization_id="", name="probe", door_secret="")
        base = self._base(trial)
        try:
            await asyncio.to_thread(self._lay_out, spec)
            (base / SPEC_FILE).unlink()  # a probe that is cut short is removed by the next start
            door = await asyncio.to_thread(prepare_door, self._options.doors_dir, trial, "")
            launched = await launch_namespaces(self._launch_isolated(spec, door, ["/bin/sleep", "60"], []))
            try:
                await self._probe_uplink(launched)
            finally:
                launched.child.kill()
                launched.first.signal(signal.SIGKILL)
                await asyncio.to_thread(launched.child.wait)
        except PermissionError as error:
            # Root in a plain container may not make device nodes, for one: the same refusal at another step.
            raise RuntimeFailure(REFUSED_HINT.format(reason=error)) from error
        except OSError as error:
            raise RuntimeFailure(f"the local runtime cannot work in {self._options.data_dir}: {error}") from error
        finally:
            await asyncio.to_thread(self._delete, trial)

    async def _probe_uplink(self, launched: Launched) -> None:
        if self._options.network is not Network.AUTO:
            return
        for uplink in network.find_uplinks():
            try:
                helper = await network.connect_uplink(uplink, launched.first.pid, die_with_parent=True)
            except RuntimeFailure as error:
                log.warning("uplink_unusable", uplink=uplink.name, reason=error.message)
                continue
            helper.kill()
            await asyncio.to_thread(helper.wait)
            self._uplink = uplink
            return

    @property
    def _is_isolated(self) -> bool:
        return self._options.isolation is Isolation.NAMESPACES

    def _sandboxes(self) -> Path:
        return self._options.data_dir / "sandboxes"

    def _base(self, sandbox_id: str) -> Path:
        return self._sandboxes() / sandbox_id

    def _account(self, user: str | None) -> Account:
        """Who runs inside. Raises `RuntimeFailure` for a user that does not exist there."""
        if self._is_isolated:
            try:
                return find_account(user, sandbox_passwd())
            except UnknownUser as error:
                raise RuntimeFailure(str(error)) from error
        if user not in (None, USER, "root" if os.geteuid() == 0 else None, str(os.geteuid())):
            raise Unsupported(
                f"without isolation every sandbox runs as the user that runs Sandyard, so {user} cannot be used"
            )
        return Account(USER, os.geteuid(), os.getegid(), "")

    def _lay_out(self, spec: SandboxSpec) -> None:
        base = self._base(spec.sandbox_id)
        base.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._is_isolated:
            Tree(base).make(self._hidden)
        else:
            (base / "home").mkdir(exist_ok=True)
        (base / SPEC_FILE).write_text(json.dumps({"user": spec.user, "name": spec.name}))

    async def _start(self, spec: SandboxSpec) -> None:
        account = self._account(spec.user)
        other_user = account.uid if self._is_isolated and os.geteuid() == 0 else None
        door = await asyncio.to_thread(
            prepare_door, self._options.doors_dir, spec.sandbox_id, spec.door_secret, uid=other_user, gid=account.gid
        )
        group = self._limits.make(
            spec.sandbox_id, memory_bytes=spec.memory_gib * 1024 * MEBIBYTE, cpus=max(1, spec.cpu)
        )
        run_id = uuid.uuid4().hex
        launched = await self._launch(spec, door, run_id, group)
        running = _Running(
            Run(
                run_id,
                launched.monitor,
                launched.first,
                (),
                tuple(str(path) for path in group.directories) if group else (),
            ),
            Watch(launched.monitor, launched.child),
            group,
        )
        running.run.save(self._base(spec.sandbox_id) / RUN_FILE)
        self._supervise(spec.sandbox_id, running)
        await self._until_ready(spec, running)

    async def _launch(self, spec: SandboxSpec, door: Path, run_id: str, group: Group | None) -> Launched:
        procs = group.procs() if group else []
        if self._is_isolated:
            command = self._bundle.command(BUNDLE_MOUNT, "--door-dir", DOOR_MOUNT)
            return await launch_namespaces(self._launch_isolated(spec, door, command, procs))
        home = str(self._base(spec.sandbox_id) / "home")
        return await launch_plain(
            Launch(
                command=self._bundle.command(str(self._bundle.path), "--door-dir", str(door)),
                env={**self._environment(spec, home), MARKER: run_id},
                cwd=home,
                log=self._base(spec.sandbox_id) / "daemon.log",
                die_with_parent=not self._options.keep_running,
                cgroup_procs=procs,
            )
        )

    def _launch_isolated(self, spec: SandboxSpec, door: Path, command: Sequence[str], procs: Sequence[str]) -> Launch:
        account = self._account(spec.user)
        base = self._base(spec.sandbox_id)
        tree = Tree(base)
        has_own_network = self._options.network is not Network.HOST or spec.network_block_all
        uplink = None if spec.network_block_all else self._uplink
        resolver = network.resolver_configuration(uplink) if has_own_network else network.host_resolver_configuration()
        tree.write_names(spec.sandbox_id, resolver)
        return Launch(
            command=command,
            env=self._environment(spec, account.home),
            cwd=account.home if (tree.files / account.home.lstrip("/")).is_dir() else "/",
            log=base / "daemon.log",
            die_with_parent=not self._options.keep_running,
            cgroup_procs=procs,
            hostname=spec.sandbox_id,
            account=account,
            root=tree.files,
            mounts=tree.mounts(door=door, bundle=self._bundle.path),
            own_network=has_own_network,
            unreachable=network.unreachable_networks() if uplink else (),
        )

    def _environment(self, spec: SandboxSpec, home: str) -> dict[str, str]:
        user = self._account(spec.user).name
        return {
            "PATH": PATH,
            "HOME": home,
            "USER": user,
            "LOGNAME": user,
            "SHELL": "/bin/bash" if Path("/bin/bash").exists() else "/bin/sh",
            "LANG": "C.UTF-8",
            "DAYTONA_SANDBOX_ID": spec.sandbox_id,
            "DAYTONA_SANDBOX_SNAPSHOT": spec.snapshot or "",
            "DAYTONA_SANDBOX_USER": user,
            "DAYTONA_ORGANIZATION_ID": spec.organization_id,
            "DAYTONA_REGION_ID": spec.region,
            **spec.env,
        }

    async def _until_ready(self, spec: SandboxSpec, running: _Running) -> None:
        """Return when the daemon answers and the network is connected. Raises `RuntimeFailure`."""
        ready = asyncio.gather(
            wait_until_daemon_answers(
                self.door(spec.sandbox_id), spec.door_secret, timeout_seconds=self._options.start_timeout_seconds
            ),
            self._connect(spec, running),
        )
        ended = asyncio.create_task(running.watch.ended.wait())
        both: set[asyncio.Future[Any]] = {ready, ended}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                raise DaemonUnreachable(f"the sandbox ended while starting: {self._last_words(spec.sandbox_id)}")
            await ready
        finally:
            ended.cancel()
            ready.cancel()
            await asyncio.gather(ready, ended, return_exceptions=True)

    async def _connect(self, spec: SandboxSpec, running: _Running) -> None:
        if self._uplink is None or spec.network_block_all or not self._is_isolated:
            return
        running.helper = await network.connect_uplink(
            self._uplink, running.run.first.pid, die_with_parent=not self._options.keep_running
        )
        helper = ProcessId.of(running.helper.pid)
        if helper is not None:
            run = running.run
            running.run = Run(run.run_id, run.monitor, run.first, (helper,), run.cgroup)
            running.run.save(self._base(spec.sandbox_id) / RUN_FILE)

    def _supervise(self, sandbox_id: str, running: _Running) -> None:
        running.gone = asyncio.Event()
        self._running[sandbox_id] = running
        self._reasons.pop(sandbox_id, None)
        running.reaper = asyncio.create_task(self._reap(sandbox_id, running), name=f"reap {sandbox_id}")

    async def _reap(self, sandbox_id: str, running: _Running) -> None:
        """Wait for the end of a run, clear away what is left of it, and tell."""
        await running.watch.ended.wait()
        reason = self._reason(sandbox_id, running)
        await asyncio.to_thread(self._clear_away, sandbox_id, running.run, running.helper)
        self._reasons[sandbox_id] = (running.watch.exit_code, reason)
        if self._running.get(sandbox_id) is running:
            del self._running[sandbox_id]
        if running.gone is not None:
            running.gone.set()
        if not running.is_stopping:
            log.info("sandbox_ended", sandbox_id=sandbox_id, reason=reason)
            for listener in self._listeners:
                listener.put_nowait(RuntimeEvent(sandbox_id, gone=False, reason=reason))

    def _reason(self, sandbox_id: str, running: _Running) -> str:
        code = running.watch.exit_code
        words = self._last_words(sandbox_id)
        # unshare(1) reports a killed child by a status and a message of its own.
        was_killed = code is None or code > 128 or words.startswith("unshare: ")
        if running.group is not None and running.group.oom_kills() and was_killed:
            return "killed: out of memory"
        if was_killed:
            return "the sandbox's first process was killed"
        return f"the sandbox's first process exited with status {code}: {words}".rstrip(": ")

    def _last_words(self, sandbox_id: str) -> str:
        with contextlib.suppress(OSError):
            lines = (self._base(sandbox_id) / "daemon.log").read_text(errors="replace").strip().splitlines()
            if lines:
                return lines[-1][:500]
        return ""

    async def _stop(self, sandbox_id: str, *, force: bool, grace_seconds: float) -> None:
        running = self._running.get(sandbox_id)
        if running is None or running.gone is None:
            return
        running.is_stopping = True
        if not force:
            running.run.first.signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_seconds):
                    await running.watch.ended.wait()
        running.run.first.signal(signal.SIGKILL)
        try:
            async with asyncio.timeout(KILL_TIMEOUT_SECONDS):
                await running.gone.wait()
        except TimeoutError:
            raise RuntimeFailure(
                f"sandbox {sandbox_id} does not end after being killed: a process is stuck in the kernel"
            ) from None

    def _clear_away(self, sandbox_id: str, run: Run, helper: subprocess.Popen[bytes] | None) -> None:
        """End every process of a run and remove its group. Blocks; may be repeated."""
        for process in (run.first, run.monitor, *run.helpers):
            process.signal(signal.SIGKILL)
        if helper is not None:
            helper.kill()
            helper.wait()
        group = Group(tuple(Path(path) for path in run.cgroup))
        if not self._is_isolated:
            kill_marked(run.run_id)
        for pid in group.members():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        group.remove()
        with contextlib.suppress(FileNotFoundError):
            (self._base(sandbox_id) / RUN_FILE).unlink()

    def _delete(self, sandbox_id: str) -> None:
        remove_door(self._options.doors_dir, sandbox_id)
        base = self._base(sandbox_id)
        if base.exists():
            (base / SPEC_FILE).unlink(missing_ok=True)  # a removal that is cut short is finished by the next start
            Tree(base).remove()


@asynccontextmanager
async def open_local_runtime(options: LocalOptions) -> AsyncIterator[LocalRuntime]:
    """The local runtime, after a trial that it works here; adopts or clears away what an earlier process left.

    Raises `RuntimeFailure` with a text that names `--isolation none` where namespaces are refused.
    """
    options.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    options.doors_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    bundle = await asyncio.to_thread(ensure_bundle, options.data_dir / "bundles")
    runtime = LocalRuntime(options, bundle, limits=find_limits(), uplink=None)
    try:
        await runtime.adopt()
        await runtime.probe()
        yield runtime
    finally:
        await runtime.close()


async def _drain(queue: asyncio.Queue[RuntimeEvent]) -> AsyncIterator[RuntimeEvent]:
    while True:
        yield await queue.get()
