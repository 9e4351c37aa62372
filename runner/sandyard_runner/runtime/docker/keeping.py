"""Sandboxes kept as images, held still, and given other limits: what the engine does to a container that is there."""

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from docker.errors import APIError
from docker.utils import parse_repository_tag

from sandyard_api.jobs.wire import Resources
from sandyard_runner.errors import NotPresent
from sandyard_runner.runtime.docker.container import kept_configuration, limits
from sandyard_runner.runtime.docker.engine import Api, Engine
from sandyard_runner.runtime.docker.failures import Conflict, Missing
from sandyard_runner.runtime.docker.images import full_reference
from sandyard_runner.runtime.docker.options import LABEL_IMAGE, DockerOptions

UNNAMED_FOR = "10m"
FREEZE_ATTEMPTS = 5
"""runc gives up on a container that is busy, and lets it run again: to repeat is the caller's. *Source:* runc #4388."""

log = structlog.get_logger(__name__)


class Keeping:
    """Implements `CanCommit`, `CanPause` and `CanResize` of the runtime's contract, for `DockerRuntime`."""

    _engine: Engine
    _options: DockerOptions

    async def commit(self, sandbox_id: str, image: str) -> None:
        """Make an image of the container's layer over its base. Raises `NotPresent`, `RuntimeFailure`."""
        name = self._options.container(sandbox_id)
        repository, tag = parse_repository_tag(full_reference(image))

        def work(api: Api) -> None:
            container = api.inspect_container(name)
            kept = kept_configuration(api.inspect_image(container["Image"]), container, self._options.installation)
            api.commit(name, repository=repository, tag=tag, conf=kept)

        making = asyncio.create_task(self._engine.call(f"keep the sandbox as {image}", _frozen(work)))
        try:
            await asyncio.shield(making)
        except Missing as error:
            raise NotPresent(sandbox_id) from error
        except asyncio.CancelledError:
            # The engine cannot be told to leave off; what it makes now nobody would know of.
            await asyncio.gather(making, return_exceptions=True)
            await self.remove_image(image)
            raise

    async def has_image(self, image: str) -> bool:
        """Whether the engine has it."""
        try:
            await self._engine.call(f"inspect {image}", lambda api: api.inspect_image(full_reference(image)))
        except Missing:
            return False
        return True

    async def remove_image(self, image: str) -> None:
        """Remove the name, and the layers where nothing else stands on them."""
        try:
            # Containers that were made from it keep its layers; without force the engine would keep the name as well.
            await self._engine.call(f"remove {image}", lambda api: api.remove_image(full_reference(image), force=True))
        except Missing:
            log.debug("already_removed", image=image)
        await self._prune()

    async def pause(self, sandbox_id: str) -> None:
        """Freeze the container's cgroup. Raises `NotPresent`."""
        if not (await self._state(sandbox_id))["Paused"]:
            name = self._options.container(sandbox_id)
            await self._unless_gone(sandbox_id, "pause the container", _frozen(lambda api: api.pause(name)))

    async def resume(self, sandbox_id: str) -> None:
        """Thaw it. Raises `NotPresent`."""
        if (await self._state(sandbox_id))["Paused"]:
            name = self._options.container(sandbox_id)
            await self._unless_gone(sandbox_id, "resume the container", lambda api: api.unpause(name))

    async def resize(self, sandbox_id: str, resources: Resources) -> None:
        """Write the limits of the container's cgroup, or those of its next start. Raises `NotPresent`."""
        name, told = self._options.container(sandbox_id), limits(resources)
        changes = {
            "cpu_period": told["CpuPeriod"],
            "cpu_quota": told["CpuQuota"],
            "mem_limit": told["Memory"],
            "memswap_limit": told["MemorySwap"],
        }
        try:
            await self._engine.call("resize the container", lambda api: api.update_container(name, **changes))
        except Missing as error:
            raise NotPresent(sandbox_id) from error

    async def _prune(self) -> None:
        """Images that lost their name while a container stood on them, and now stand alone."""
        filters = {
            "dangling": True,
            "label": f"{LABEL_IMAGE}={self._options.installation}",
            "until": UNNAMED_FOR,  # a commit names its image a moment after it made it
        }
        try:
            await self._engine.call("remove unused images", lambda api: api.prune_images(filters=filters))
        except Conflict:
            log.debug("pruning_already")  # the engine does one at a time

    async def _state(self, sandbox_id: str) -> dict[str, Any]:
        name = self._options.container(sandbox_id)
        try:
            found: dict[str, Any] = (
                await self._engine.call("inspect the container", lambda api: api.inspect_container(name))
            )["State"]
        except Missing as error:
            raise NotPresent(sandbox_id) from error
        if not found["Running"]:
            raise NotPresent(sandbox_id)
        return found

    async def _unless_gone(self, sandbox_id: str, doing: str, work: Any) -> None:
        try:
            await self._engine.call(doing, work)
        except (Missing, Conflict) as error:
            # Between our look and the call it ended, or somebody did the same.
            if isinstance(error, Conflict) and "already paused" in error.message:
                return
            raise NotPresent(sandbox_id) from error


def _frozen(work: Callable[[Api], None]) -> Callable[[Api], None]:
    """What has the engine freeze a container, repeated while it cannot."""

    def repeat(api: Api) -> None:
        for _ in range(FREEZE_ATTEMPTS - 1):
            try:
                return work(api)
            except APIError as error:
                if "unable to freeze" not in str(error):
                    raise
                log.info("freezing_again", reason=str(error))
        return work(api)

    return repeat
