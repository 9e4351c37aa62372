"""The sandbox network: a bridge of our own whose members cannot talk to each other, and the rules on its way out."""

import os
import shutil
from collections.abc import Sequence
from typing import Any

import structlog

from sandyard_runner.egress.closed import CONTAINER_BRIDGES, METADATA
from sandyard_runner.egress.nft import run_nft
from sandyard_runner.errors import RuntimeFailure
from sandyard_runner.runtime.docker.broker import Broker
from sandyard_runner.runtime.docker.engine import Api, Engine
from sandyard_runner.runtime.docker.failures import Conflict, Missing
from sandyard_runner.runtime.docker.held import PROXY_PORT, Held, Ports
from sandyard_runner.runtime.docker.helper import run_helper
from sandyard_runner.runtime.docker.options import LABEL_INSTALLATION, DockerOptions

log = structlog.get_logger(__name__)

PRIVATE, PRIVATE_V6 = "{ 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 }", "fc00::/7"
"""Where engines choose the networks of their bridges (RFC 1918, RFC 4193)."""


def rules(options: DockerOptions, held: Sequence[Held] = (), ports: Ports | None = None) -> str:
    """The nftables script that replaces our table. Applying it twice is applying it once.

    Drops what sandboxes send to any address of the machine itself, to other containers and the ports that these publish
    on it, and to link-local and metadata addresses; name servers among the latter stay reachable. What one of `held`
    may not reach is dropped before; queries for names and for our proxy are led to `ports` of this machine.
    """
    table, bridge = f"inet {table_name(options)}", options.bridge
    return f"""
table {table} {{}}
delete table {table}
table {table} {{
{"".join(_of_sandbox(each) for each in held if each.policy.is_listed)}
  chain prerouting {{
    type nat hook prerouting priority -110; policy accept;
    iifname != "{bridge}" accept
{_redirects(held, ports)}
  }}
  chain input {{
    type filter hook input priority -10; policy accept;
    iifname != "{bridge}" accept
    ct state established,related accept
{_services(held, ports)}
    drop
  }}
  chain forward {{
    type filter hook forward priority -10; policy accept;
    iifname != "{bridge}" accept
{_jumps(held)}
    ct status dnat drop
{_containers()}
    ip daddr 169.254.0.0/16 udp dport 53 accept
    ip daddr 169.254.0.0/16 tcp dport 53 accept
    ip daddr {{ 169.254.0.0/16, {", ".join(METADATA)} }} drop
    ip6 daddr {{ fe80::/10, fd00:ec2::254 }} drop
  }}
}}
"""


def _of_sandbox(held: Held) -> str:
    """What one with lists may reach. Connections outlive the time to live of the name that led there."""
    elements = ", ".join(f"{address} timeout {seconds}s" for address, seconds in held.names_left())
    names = f"elements = {{ {elements} }};" if elements else ""
    networks = f"ip daddr {{ {', '.join(held.policy.networks)} }} return" if held.policy.networks else ""
    return f"""
  set {held.names_set} {{ type ipv4_addr; flags timeout; {names} }}
  chain {held.chain} {{
    ct mark {held.mark} ct state established,related return
    ip daddr @{held.names_set} ct mark set {held.mark} return
    {networks}
    drop
  }}
"""


def _jumps(held: Sequence[Held]) -> str:
    return "\n".join(f"    ip saddr {each.address} jump {each.chain}" for each in held if each.policy.is_listed)


def _containers() -> str:
    """The engine keeps its networks apart, too, but takes its rules away for a moment whenever it makes a network."""
    return "\n".join(
        f'    oifname "{prefix}*" ip daddr {PRIVATE} drop\n    oifname "{prefix}*" ip6 daddr {PRIVATE_V6} drop'
        for prefix in CONTAINER_BRIDGES
    )


def _redirects(held: Sequence[Held], ports: Ports | None) -> str:
    lines: list[str] = []
    if ports is None:
        return ""
    for each in held:
        if each.policy.domains:
            lines.append(f"    ip saddr {each.address} udp dport 53 redirect to :{ports.names}")
            lines.append(f"    ip saddr {each.address} tcp dport 53 redirect to :{ports.name_streams}")
        if each.policy.needs_proxy:
            lines.append(f"    ip saddr {each.address} tcp dport {PROXY_PORT} redirect to :{ports.proxy}")
    return "\n".join(lines)


def _services(held: Sequence[Held], ports: Ports | None) -> str:
    served = ", ".join(each.address for each in held if each.policy.needs_services)
    if not ports or not served:
        return ""
    return f"""    ip saddr {{ {served} }} udp dport {ports.names} accept
    ip saddr {{ {served} }} tcp dport {{ {ports.name_streams}, {ports.proxy} }} accept"""


def table_name(options: DockerOptions) -> str:
    """Name of our nftables table on the engine's machine."""
    return f"sandyard_{options.short_id}"


async def ensure_network(engine: Engine, options: DockerOptions) -> None:
    """Create the bridge unless it is there."""
    try:
        await engine.call("inspect the sandbox network", lambda api: api.inspect_network(options.network))
    except Missing:
        try:
            await engine.call("create the sandbox network", lambda api: _create(api, options))
        except Conflict:
            log.info("network_made_meanwhile", network=options.network)


def _create(api: Api, options: DockerOptions) -> Any:
    return api.create_network(
        options.network,
        driver="bridge",
        check_duplicate=True,
        labels={LABEL_INSTALLATION: options.installation},
        options={
            "com.docker.network.bridge.name": options.bridge,
            "com.docker.network.bridge.enable_icc": "false",
        },
    )


async def remove_network(engine: Engine, options: DockerOptions) -> bool:
    """Remove the bridge; false when it was not there or containers still use it."""
    try:
        await engine.call("remove the sandbox network", lambda api: api.remove_network(options.network))
    except Missing:
        return False
    except RuntimeFailure as failure:
        log.info("network_kept", network=options.network, reason=failure.message)
        return False
    return True


class Rules:
    """Puts our nftables table on the engine's machine: directly as root there, else through a container."""

    def __init__(
        self, engine: Engine, options: DockerOptions, *, helper_images: Sequence[str], broker: Broker | None
    ) -> None:
        self.broker = broker
        """There where this process is in a container of the engine itself."""
        self.held: dict[str, Held] = {}
        """Sandboxes with rules of their own, by id."""
        self.ports: Ports | None = None
        """Where our name server and proxy listen, once they do."""
        self._engine = engine
        self._options = options
        self._helper_images = helper_images
        self._direct = broker is None and os.geteuid() == 0 and shutil.which("nft") is not None
        self.problem = "not applied yet"
        """Why they do not hold; empty when they do."""

    async def apply(self) -> bool:
        """Put them in place. What hinders it is not raised but kept in `problem`: sandboxes run, and users are told."""
        try:
            await self._nft(rules(self._options, list(self.held.values()), self.ports))
        except RuntimeFailure as failure:
            self.problem = failure.message
            return False
        self.problem = ""
        return True

    async def admit(self, sandbox_id: str, found: Sequence[tuple[str, int]]) -> None:
        """Open the way to addresses for so many seconds each. Raises `RuntimeFailure`."""
        held = self.held.get(sandbox_id)
        if held is None or not held.policy.is_listed:
            return
        held.note_names(found)
        place = f"element inet {table_name(self._options)} {held.names_set}"
        lines = []
        for address, seconds in found:
            # Adding what is there changes nothing, not even its time.
            lines += [f"add {place} {{ {address} }}", f"delete {place} {{ {address} }}"]
            lines.append(f"add {place} {{ {address} timeout {seconds}s }}")
        await self._nft("\n".join(lines) + "\n")

    async def remove(self) -> None:
        """Take them away again. Raises `RuntimeFailure`."""
        table = f"inet {table_name(self._options)}"
        await self._nft(f"table {table} {{}}\ndelete table {table}\n")
        self.problem = "removed"

    async def _nft(self, script: str) -> None:
        if self._direct:
            await run_nft(script)
        elif self.broker is not None and self.broker.is_running:
            await self.broker.load_rules(script)
        else:
            await self._run_helper(script)

    async def _run_helper(self, script: str) -> None:
        """With the machine's own network and that one capability."""
        host = {"NetworkMode": "host", "CapDrop": ["ALL"], "CapAdd": ["NET_ADMIN"]}
        for image in self._helper_images:
            try:
                await run_helper(
                    self._engine, self._options, image, ["nft", script], doing="set the network rules", host=host
                )
            except Missing:
                continue
            return
        raise RuntimeFailure(
            "network rules need root with `nft`, or our own image on the engine, and there is neither yet"
        )
