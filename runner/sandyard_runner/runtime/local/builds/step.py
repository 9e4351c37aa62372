"""Running one step of a build in namespaces of its own, its output told line by line."""

import asyncio
import codecs
import os
import signal
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from sandyard_runner.errors import RuntimeFailure
from sandyard_runner.runtime.contract import ProgressReport
from sandyard_runner.runtime.local import network
from sandyard_runner.runtime.local.cgroups import Limits
from sandyard_runner.runtime.local.launch import Launch, Launched, launch_namespaces
from sandyard_runner.runtime.local.layout import BUNDLE_MOUNT, Layout
from sandyard_runner.runtime.local.options import Network
from sandyard_runner.runtime.local.process import Watch
from sandyard_runner.runtime.local.tree import Account, Tree
from sandyard_runner.runtime.local.veth import Veth

STEP_MEMORY_BYTES = 4 << 30
DESK_MOUNT = "/run/sandyard-build"
"""Where a step sees what was laid out for it, read-only."""
READ_BYTES = 1 << 16
MAX_LINE = 1 << 14


class Step(msgspec.Struct, frozen=True):
    """What is to run, on what, as whom."""

    command: Sequence[str]
    tree: Tree
    account: Account
    env: Mapping[str, str]
    work_dir: str = "/"
    desk: Path | None = None
    """Shown read-only at `DESK_MOUNT`."""
    has_network: bool = True


class Steps:
    """Runs steps; each is over, with everything it started, when `run` returns."""

    def __init__(self, layout: Layout, limits: Limits, veth: Veth) -> None:
        self._layout = layout
        self._limits = limits
        self._veth = veth

    def bundled(self, program: str, *arguments: str) -> list[str]:
        """The command line of a program of the desk, in the bundle's own Python."""
        return [*self._layout.bundle.python(BUNDLE_MOUNT), f"{DESK_MOUNT}/{program}", *arguments]

    async def run(self, step: Step, log: Path, report: ProgressReport) -> int:
        """Its exit status. Raises `RuntimeFailure` where it cannot begin; cancelled, it ends the step first."""
        name = f"build-{uuid.uuid4().hex[:12]}"
        try:
            group = self._limits.make(name, memory_bytes=STEP_MEMORY_BYTES, cpus=os.cpu_count() or 1)
        except OSError as error:
            raise RuntimeFailure(f"the step's limits cannot be set: {error}") from error
        try:
            status = await self._run(name, step, log, report, group.procs() if group else ())
            if group is not None and group.oom_kills() and status > 128:
                report(f"killed: out of memory ({STEP_MEMORY_BYTES >> 30} GiB for a step)")
            return status
        finally:
            if group is not None:
                await asyncio.to_thread(group.remove)

    async def _run(self, name: str, step: Step, log: Path, report: ProgressReport, procs: Sequence[str]) -> int:
        gate_read, gate_write = os.pipe()
        output_read, output_write = os.pipe()
        telling = asyncio.create_task(_tell(output_read, report))
        try:
            try:
                launched = await launch_namespaces(self._launch(step, log, procs, gate_read, output_write))
            finally:
                os.close(gate_read)
                os.close(output_write)
            try:
                async with self._connected(name, step, launched):
                    os.write(gate_write, b"1")
                    watch = Watch(launched.monitor, launched.child)
                    try:
                        await watch.ended.wait()
                    finally:
                        watch.close()
                    return watch.exit_code if watch.exit_code is not None else 1
            finally:
                launched.first.signal(signal.SIGKILL)
                launched.child.kill()
                await asyncio.to_thread(launched.child.wait)
        finally:
            os.close(gate_write)
            await telling

    def _launch(self, step: Step, log: Path, procs: Sequence[str], gate: int, output: int) -> Launch:
        layout, mounts = self._layout, step.tree.mounts(door=None, bundle=self._layout.bundle.path)
        if step.desk is not None:
            mounts.append({"kind": "bind", "source": str(step.desk), "target": DESK_MOUNT, "readonly": True})
        return Launch(
            command=step.command,
            env=step.env,
            cwd=step.work_dir,
            log=log,
            die_with_parent=True,
            cgroup_procs=procs,
            hostname="build",
            account=step.account,
            root=step.tree.files,
            root_overlay=step.tree.root_overlay(),
            mounts=mounts,
            own_network=layout.options.network is not Network.HOST or not step.has_network,
            unreachable=layout.unreachable(),
            gate=gate,
            output=output,
        )

    @asynccontextmanager
    async def _connected(self, name: str, step: Step, launched: Launched) -> AsyncIterator[None]:
        """With the way out that sandboxes have."""
        uplink = self._layout.uplink
        if uplink is None or not step.has_network:
            yield
        elif uplink.name == network.VETH:
            await self._veth.connect(name, launched.first.pid)
            try:
                yield
            finally:
                await self._veth.disconnect(name)
        else:
            helper = await network.connect_uplink(uplink, launched.first.pid, die_with_parent=True)
            try:
                yield
            finally:
                helper.kill()
                await asyncio.to_thread(helper.wait)


async def _tell(descriptor: int, report: ProgressReport) -> None:
    """Every line until the last holder of the pipe's other end is gone; a line that does not end is told in pieces."""
    reader = asyncio.StreamReader()
    file = os.fdopen(descriptor, "rb", buffering=0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), file
    )
    decoder, held = codecs.getincrementaldecoder("utf-8")(errors="replace"), ""
    try:
        while chunk := await reader.read(READ_BYTES):
            *lines, held = (held + decoder.decode(chunk)).replace("\r\n", "\n").replace("\r", "\n").split("\n")
            for line in lines:
                report(line)
            if len(held) > MAX_LINE:
                report(held)
                held = ""
        if held:
            report(held)
    finally:
        transport.close()
