"""The connection of local sandboxes to the world, and the rules on it."""

import asyncio
import os
import signal
from collections import defaultdict
from collections.abc import Mapping

from sandyard_api.jobs.wire import SandboxSpec
from sandyard_runner.egress.policy import Policy
from sandyard_runner.errors import NotPresent, Unsupported
from sandyard_runner.runtime.local import network
from sandyard_runner.runtime.local.egress import LocalEgress
from sandyard_runner.runtime.local.layout import Layout
from sandyard_runner.runtime.local.options import LocalOptions, Network
from sandyard_runner.runtime.local.process import ProcessId, Run, Running
from sandyard_runner.runtime.local.veth import Veth


class WayOut:
    """Implements `CanRestrict` of the runtime's contract, for `LocalRuntime`."""

    _layout: Layout
    _options: LocalOptions
    _running: dict[str, Running]
    _locks: defaultdict[str, asyncio.Lock]
    _egress: LocalEgress
    _veth: Veth

    async def hold_network(self, spec: SandboxSpec) -> Mapping[str, str]:
        """Hold the spec's rules and secrets from now on."""
        async with self._locks[spec.sandbox_id]:
            running = self._running.get(spec.sandbox_id)
            if running is None:
                raise NotPresent(spec.sandbox_id)
            return await self._hold(spec, running)

    async def _hold(self, spec: SandboxSpec, running: Running) -> Mapping[str, str]:
        policy, pid = Policy.of(spec), running.run.first.pid
        if not _has_own_network(pid):
            if policy != Policy():
                raise Unsupported("this sandbox has no network of its own, so there is nothing to hold rules in")
            return {}
        if policy.is_listed and os.geteuid() != 0 and self._layout.account(spec).uid == 0:
            raise Unsupported("network lists cannot be held for a sandbox of root: start Sandyard as root")
        if policy.block_all:
            await self._disconnect(spec.sandbox_id, running)
            return await self._egress.hold(spec.sandbox_id, pid, policy)
        if self._options.network is Network.HOST:
            raise Unsupported("this sandbox began without a network: stop and start it for the host's")
        # The rules come first: nothing gets out in between.
        variables = await self._egress.hold(spec.sandbox_id, pid, policy)
        if not self._is_connected(spec.sandbox_id, running):
            await self._connect(spec.sandbox_id, running)
        return variables

    def _is_connected(self, sandbox_id: str, running: Running) -> bool:
        return any(helper.is_alive() for helper in running.run.helpers) or self._veth.is_connected(sandbox_id)

    async def _connect(self, sandbox_id: str, running: Running) -> None:
        uplink = self._layout.uplink
        if uplink is None or not self._layout.is_isolated:
            return
        if uplink.name == network.VETH:
            await self._veth.connect(sandbox_id, running.run.first.pid)
            return
        running.helper = await network.connect_uplink(
            uplink, running.run.first.pid, die_with_parent=not self._options.keep_running
        )
        helper = ProcessId.of(running.helper.pid)
        self._note_helpers(sandbox_id, running, () if helper is None else (helper,))

    async def _disconnect(self, sandbox_id: str, running: Running) -> None:
        """Loopback is all that is left; open connections lead nowhere from now on."""
        await self._veth.disconnect(sandbox_id)
        for helper in running.run.helpers:
            helper.signal(signal.SIGKILL)
        if running.helper is not None:
            running.helper.kill()
            await asyncio.to_thread(running.helper.wait)
            running.helper = None
        if running.run.helpers:
            self._note_helpers(sandbox_id, running, ())

    def _note_helpers(self, sandbox_id: str, running: Running, helpers: tuple[ProcessId, ...]) -> None:
        run = running.run
        running.run = Run(run.run_id, run.monitor, run.first, helpers, run.cgroup)
        running.run.save(self._layout.run_file(sandbox_id))


def _has_own_network(pid: int) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")
    except OSError:
        return False
