"""The way out of container sandboxes: who is on the network, under which rules, and the services beside it."""

import asyncio
import socket
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import structlog

from sandyard_runner.egress.names import Client
from sandyard_runner.egress.outside import Here, Outside
from sandyard_runner.egress.policy import Policy
from sandyard_runner.egress.services import Services, Sockets, environment
from sandyard_runner.errors import NotPresent, RuntimeFailure, Unsupported
from sandyard_runner.runtime.docker import held as keeping
from sandyard_runner.runtime.docker.engine import Engine
from sandyard_runner.runtime.docker.failures import Conflict, Missing
from sandyard_runner.runtime.docker.held import PROXY_PORT, Held, Ports
from sandyard_runner.runtime.docker.network import Rules
from sandyard_runner.runtime.docker.options import DOOR_MOUNT, DockerOptions

log = structlog.get_logger(__name__)

BUNDLE_NAME = "certificates.pem"
"""In a sandbox's door directory: what its clients trust once it has secrets."""
FILE_NAME = "network.json"
NO_NETWORK = "none"


class Egress:
    """Holds policies. Everything that changes the table goes through one lock."""

    def __init__(self, engine: Engine, options: DockerOptions, rules: Rules) -> None:
        self._engine = engine
        self._options = options
        self._rules = rules
        self._outside: Outside = rules.broker or Here()
        self._services = Services(options.data_dir / "egress", options.name_servers, self._outside)
        self._lock = asyncio.Lock()
        self._current: dict[str, Policy] = {}
        """What is known to hold for a sandbox's present run."""
        self._stack = AsyncExitStack()
        self._gateway = ""

    async def open(self) -> None:
        """Take up what an earlier process of ours held, and write the table."""
        self._rules.held = {each.sandbox_id: each for each in keeping.load(self._options.data_dir / FILE_NAME)}
        self._forget_missing(await self._addresses())
        if any(each.policy.needs_services for each in self._rules.held.values()):
            try:
                await self._serve()
            except RuntimeFailure as failure:  # what they would open stays closed, until the next change
                log.warning("egress_not_serving", reason=failure.message)
        await self._rules.apply()

    async def close(self) -> None:
        """End the services; the rules stay, and close what these opened."""
        await self._stack.aclose()

    async def hold(self, sandbox_id: str, policy: Policy) -> Mapping[str, str]:
        """See `CanRestrict.hold_network`."""
        async with self._lock:
            if self._current.get(sandbox_id) != policy:
                await self._change(sandbox_id, policy)
                self._current[sandbox_id] = policy
        return environment(policy, f"http://{self._gateway}:{PROXY_PORT}", f"{DOOR_MOUNT}/{BUNDLE_NAME}")

    async def forget(self, sandbox_id: str) -> None:
        """It does not run any more: its address will be somebody else's."""
        async with self._lock:
            self._current.pop(sandbox_id, None)
            if self._rules.held.pop(sandbox_id, None) is not None:
                await self._write()

    async def _change(self, sandbox_id: str, policy: Policy) -> None:
        self._check(policy)
        if policy.block_all:
            await self._leave(sandbox_id)
            if self._rules.held.pop(sandbox_id, None) is not None:
                await self._write()
            return
        if policy.needs_services:
            await self._serve()
        address = await self._join(sandbox_id)
        before = dict(self._rules.held)
        self._rules.held = {key: each for key, each in before.items() if each.address != address and key != sandbox_id}
        if policy.is_listed or policy.needs_proxy:
            self._rules.held[sandbox_id] = Held(sandbox_id, address, policy)
        if policy.secrets:
            await asyncio.to_thread(self._write_bundle, sandbox_id)
        if self._rules.held != before:
            await self._write()

    def _check(self, policy: Policy) -> None:
        if policy.block_all or not (policy.is_listed or policy.needs_proxy):
            return
        if self._rules.problem:
            raise Unsupported(f"the network rules cannot be held here: {self._rules.problem}")

    async def _write(self) -> None:
        await asyncio.to_thread(keeping.save, self._options.data_dir / FILE_NAME, list(self._rules.held.values()))
        if not await self._rules.apply():
            raise RuntimeFailure(f"the network rules cannot be held: {self._rules.problem}")

    def _write_bundle(self, sandbox_id: str) -> None:
        path = self._options.doors_dir / sandbox_id / BUNDLE_NAME
        scratch = path.with_suffix(".new")
        scratch.unlink(missing_ok=True)  # whatever it is: root inside may write here, too
        with scratch.open("x", encoding="utf-8") as file:
            file.write(self._services.authority.bundle())
        scratch.chmod(0o644)
        scratch.replace(path)

    async def _serve(self) -> None:
        """Begin our services on the bridge's address, unless they run."""
        if self._rules.ports is not None:
            return
        network = await self._engine.call(
            "inspect the sandbox network", lambda api: api.inspect_network(self._options.network)
        )
        self._gateway = network["IPAM"]["Config"][0]["Gateway"]
        try:
            sockets = Sockets(*[await self._bound(kind) for kind in KINDS])
        except OSError as error:
            raise RuntimeFailure(f"our services cannot listen on {self._gateway}: {error}") from error
        await self._stack.enter_async_context(self._services.serving(sockets, self._find))
        self._rules.ports = Ports(
            *(each.getsockname()[1] for each in (sockets.datagrams, sockets.streams, sockets.proxy))
        )

    async def _bound(self, kind: socket.SocketKind) -> socket.socket:
        made = await self._outside.make_socket(kind)
        try:
            made.bind((self._gateway, 0))
        except OSError:
            made.close()
            raise
        return made

    def _find(self, source: str) -> Client | None:
        for each in self._rules.held.values():
            if each.address == source:
                return Client(each.policy, partial(self._rules.admit, each.sandbox_id))
        return None

    async def _networks(self, sandbox_id: str) -> dict[str, Any]:
        name = self._options.container(sandbox_id)
        try:
            found = await self._engine.call("inspect the container", lambda api: api.inspect_container(name))
        except Missing as error:
            raise NotPresent(sandbox_id) from error
        networks: dict[str, Any] = found["NetworkSettings"]["Networks"] or {}
        return networks

    async def _leave(self, sandbox_id: str) -> None:
        """Take it off the network: nothing but loopback is left."""
        name, network = self._options.container(sandbox_id), self._options.network
        if network in await self._networks(sandbox_id):
            await self._engine.call(
                "disconnect the sandbox", lambda api: api.disconnect_container_from_network(name, network, force=True)
            )

    async def _join(self, sandbox_id: str) -> str:
        """Put it on the network unless it is there; its address."""
        name, network = self._options.container(sandbox_id), self._options.network
        networks = await self._networks(sandbox_id)
        if network not in networks:
            if NO_NETWORK in networks:
                await self._engine.call(
                    "connect the sandbox", lambda api: api.disconnect_container_from_network(name, NO_NETWORK)
                )
            try:
                await self._engine.call(
                    "connect the sandbox", lambda api: api.connect_container_to_network(name, network)
                )
            except Conflict:
                log.debug("connected_already", sandbox_id=sandbox_id)
            networks = await self._networks(sandbox_id)
        address = networks.get(network, {}).get("IPAddress")
        if not address:
            raise NotPresent(sandbox_id)
        return str(address)

    async def _addresses(self) -> set[str]:
        """Of everything on the sandbox network now."""
        try:
            network = await self._engine.call(
                "inspect the sandbox network", lambda api: api.inspect_network(self._options.network)
            )
        except Missing:
            return set()
        return {item["IPv4Address"].partition("/")[0] for item in (network["Containers"] or {}).values()}

    def _forget_missing(self, addresses: set[str]) -> None:
        self._rules.held = {key: each for key, each in self._rules.held.items() if each.address in addresses}


KINDS = (socket.SOCK_DGRAM, socket.SOCK_STREAM, socket.SOCK_STREAM)
