"""Networks of linked sandboxes: one for each sandbox that others are linked to, with nobody else on it and no way out.

The bridge has no address of the engine's machine, so that it leads to no service there, whatever rules hold.
"""

import asyncio
import zlib
from functools import partial
from typing import Any

import structlog

from sandyard_runner.errors import NotPresent, RuntimeFailure
from sandyard_runner.runtime.docker.engine import Api, Engine
from sandyard_runner.runtime.docker.failures import Conflict, Missing
from sandyard_runner.runtime.docker.options import LABEL_INSTALLATION, LABEL_LINK, DockerOptions

NO_NETWORK = "none"

log = structlog.get_logger(__name__)


class Links:
    """Joins sandboxes, and removes networks whose owner is gone."""

    def __init__(self, engine: Engine, options: DockerOptions) -> None:
        self._engine = engine
        self._options = options
        self._owners: set[str] = set()
        """Sandboxes that may have a network."""
        self._lock = asyncio.Lock()

    async def open(self) -> None:
        """Take up what an earlier process of ours made."""
        self._owners = {item["Labels"][LABEL_LINK] for item in await networks(self._engine, self._options)}

    async def join(self, owner_id: str, sandbox_id: str) -> None:
        """Put a sandbox, running or not, on the network of `owner_id`, where others find it as `<id>.link`.

        The owner itself is put there as well where it exists. May be repeated. Raises `RuntimeFailure`.
        """
        async with self._lock:
            self._owners.add(owner_id)
            try:
                await self._engine.call("make a network for linked sandboxes", lambda api: self._make(api, owner_id))
            except Conflict:
                log.debug("link_network_there", owner_id=owner_id)
            await self._connect(owner_id, sandbox_id)
            if owner_id != sandbox_id:
                try:
                    await self._connect(owner_id, owner_id)
                except NotPresent:  # it is archived, and joins when it is restored
                    log.info("link_owner_absent", owner_id=owner_id)

    async def prune(self) -> None:
        """Remove the networks whose owner is gone, once nobody is on them."""
        if not self._owners:
            return
        async with self._lock:
            for owner_id in list(self._owners):
                if await self._exists(owner_id):
                    continue
                try:
                    await self._engine.call("remove a network", partial(_remove, name=self._name(owner_id)))
                except Missing:
                    log.debug("link_network_gone", owner_id=owner_id)
                except RuntimeFailure as failure:  # a linked one is still there, whose removal comes here again
                    log.info("link_network_kept", owner_id=owner_id, reason=failure.message)
                    continue
                self._owners.discard(owner_id)

    def _name(self, owner_id: str) -> str:
        return f"sandyard-link-{owner_id}"

    def _make(self, api: Api, owner_id: str) -> Any:
        return api.create_network(
            self._name(owner_id),
            driver="bridge",
            check_duplicate=True,
            internal=True,
            labels={LABEL_INSTALLATION: self._options.installation, LABEL_LINK: owner_id},
            options={
                "com.docker.network.bridge.name": f"sl{self._options.short_id[:4]}{zlib.crc32(owner_id.encode()):08x}",
                "com.docker.network.bridge.inhibit_ipv4": "true",
            },
        )

    async def _connect(self, owner_id: str, sandbox_id: str) -> None:
        container, network = self._options.container(sandbox_id), self._name(owner_id)
        try:
            found = await self._engine.call("inspect the container", lambda api: api.inspect_container(container))
        except Missing as error:
            raise NotPresent(sandbox_id) from error
        present = found["NetworkSettings"]["Networks"] or {}
        if network in present:
            return
        if NO_NETWORK in present:
            await self._engine.call(
                "connect linked sandboxes", lambda api: api.disconnect_container_from_network(container, NO_NETWORK)
            )
        # The engine itself answers for a container's host name, which is the id, with any of its addresses.
        aliases = [f"{sandbox_id}.link"]
        try:
            await self._engine.call(
                "connect linked sandboxes",
                lambda api: api.connect_container_to_network(container, network, aliases=aliases),
            )
        except Conflict:
            log.debug("linked_already", sandbox_id=sandbox_id)

    async def _exists(self, sandbox_id: str) -> bool:
        container = self._options.container(sandbox_id)
        try:
            await self._engine.call("inspect the container", lambda api: api.inspect_container(container))
        except Missing:
            return False
        return True


async def networks(engine: Engine, options: DockerOptions) -> list[dict[str, Any]]:
    """Every network of linked sandboxes of this installation."""
    filters = {"label": [f"{LABEL_INSTALLATION}={options.installation}", LABEL_LINK]}
    found: list[dict[str, Any]] = await engine.call("list the networks", lambda api: api.networks(filters=filters))
    return found


async def remove_links(engine: Engine, options: DockerOptions) -> list[str]:
    """Remove them all; the names of those that went."""
    gone = []
    for item in await networks(engine, options):
        try:
            await engine.call("remove a network", partial(_remove, name=item["Name"]))
        except RuntimeFailure as failure:
            log.info("link_network_kept", network=item["Name"], reason=failure.message)
            continue
        gone.append(str(item["Name"]))
    return gone


def _remove(api: Api, name: str) -> None:
    api.remove_network(name)
