"""Local sandboxes kept as images, held still, and given other limits."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from functools import partial

from sandyard_api.jobs.wire import Resources
from sandyard_runner.errors import NotPresent, RuntimeFailure, Unsupported
from sandyard_runner.runtime.local.cgroups import Limits
from sandyard_runner.runtime.local.layout import Layout
from sandyard_runner.runtime.local.process import Running, continue_all, stop_all

GIBIBYTE = 1 << 30


class Keeping:
    """Implements `CanCommit`, `CanPause` and `CanResize` of the runtime's contract, for `LocalRuntime`."""

    _layout: Layout
    _limits: Limits
    _running: dict[str, Running]
    _locks: defaultdict[str, asyncio.Lock]

    async def commit(self, sandbox_id: str, image: str) -> None:
        """Copy what the sandbox wrote. Raises `NotPresent`, `RuntimeFailure`."""
        async with self._locks[sandbox_id]:
            if not self._layout.exists(sandbox_id):
                raise NotPresent(sandbox_id)
            running = self._running.get(sandbox_id)
            held = running if running is not None and not running.is_paused else None
            if held is not None:
                await self._hold_still(held)
            try:
                await self._keep(sandbox_id, image)
            finally:
                if held is not None:
                    await self._let_run(held)

    async def has_image(self, image: str) -> bool:
        """Whether it was kept."""
        return await asyncio.to_thread(self._layout.kept.exists, image)

    async def images(self) -> list[str]:
        """What is kept here."""
        return await asyncio.to_thread(self._layout.kept.names)

    async def remove_image(self, image: str) -> None:
        """Not there is success; sandboxes have copies of their own."""
        await asyncio.to_thread(self._layout.kept.remove, image)

    async def pause(self, sandbox_id: str) -> None:
        """Freeze its control group, else stop each process. Raises `NotPresent`, `RuntimeFailure`."""
        async with self._locks[sandbox_id]:
            running = self._find_running(sandbox_id)
            if not running.is_paused:
                await self._hold_still(running)

    async def resume(self, sandbox_id: str) -> None:
        """Undo that. Raises `NotPresent`."""
        async with self._locks[sandbox_id]:
            running = self._find_running(sandbox_id)
            if running.is_paused:
                await self._let_run(running)

    async def resize(self, sandbox_id: str, resources: Resources) -> None:
        """Write the limits of its control group; a stopped one gets them at its start.

        Raises `NotPresent`, `Unsupported` where no control group is delegated.
        """
        async with self._locks[sandbox_id]:
            if not self._layout.exists(sandbox_id):
                raise NotPresent(sandbox_id)
            if not {"cpu", "memory"} <= self._limits.enforced:
                raise Unsupported("CPU and memory cannot be changed: no control group is delegated to Sandyard")
            running = self._running.get(sandbox_id)
            if running is None or running.group is None:
                return
            try:
                self._limits.change(sandbox_id, memory_bytes=resources.memory_gib * GIBIBYTE, cpus=resources.cpu)
            except OSError as error:
                raise RuntimeFailure(f"the sandbox's limits cannot be changed: {error}") from error

    def _find_running(self, sandbox_id: str) -> Running:
        running = self._running.get(sandbox_id)
        if running is None:
            raise NotPresent(sandbox_id)
        return running

    async def _hold_still(self, running: Running) -> None:
        running.is_paused = True
        try:
            await _to_its_end(partial(self._stop_processes, running))
        except (OSError, TimeoutError) as error:
            running.is_paused = False
            raise RuntimeFailure(f"the sandbox cannot be paused: {error}") from error
        except asyncio.CancelledError:
            await self._let_run(running)
            raise

    async def _let_run(self, running: Running) -> None:
        await _to_its_end(partial(self._continue_processes, running))
        running.is_paused = False

    def _stop_processes(self, running: Running) -> None:
        group, run = running.group, running.run
        if group is not None and group.can_freeze:
            group.freeze()
        else:
            running.stopped = stop_all(run.first, run.run_id, in_namespace=self._layout.is_isolated)

    def _continue_processes(self, running: Running) -> None:
        group, run = running.group, running.run
        if group is not None and group.can_freeze:
            group.thaw()
        else:
            continue_all(run.first, run.run_id, running.stopped, in_namespace=self._layout.is_isolated)
            running.stopped = []

    async def _keep(self, sandbox_id: str, image: str) -> None:
        try:
            await _to_its_end(partial(self._layout.kept.keep, image, self._layout.base(sandbox_id)))
        except asyncio.CancelledError:
            await self.remove_image(image)  # nobody would know of it
            raise


async def _to_its_end(work: Callable[[], None]) -> None:
    """Run in a thread, which cannot be cancelled: who is cancelled meanwhile waits for its end first."""
    working = asyncio.create_task(asyncio.to_thread(work))
    try:
        await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.gather(working, return_exceptions=True)
        raise
