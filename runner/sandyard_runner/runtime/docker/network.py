"""The sandbox network: a bridge of our own whose members cannot talk to each other, and the rules on its way out."""

import asyncio
import os
import shutil
from collections.abc import Sequence
from typing import Any

import structlog

from sandyard_runner.errors import RuntimeFailure
from sandyard_runner.runtime.docker.engine import Api, Engine
from sandyard_runner.runtime.docker.failures import Conflict, Missing
from sandyard_runner.runtime.docker.helper import run_helper
from sandyard_runner.runtime.docker.options import LABEL_INSTALLATION, DockerOptions

log = structlog.get_logger(__name__)

NFT_SECONDS = 10.0
METADATA = ("100.100.100.200", "168.63.129.16", "192.0.0.192")
"""Metadata services outside the link-local range: Alibaba, Azure, Oracle."""


def rules(options: DockerOptions) -> str:
    """The nftables script that replaces our table. Applying it twice is applying it once.

    Drops what sandboxes send to any address of the machine itself, to ports that other containers publish on it, and to
    link-local and metadata addresses; name servers among the latter stay reachable.
    """
    table, bridge = f"inet {table_name(options)}", options.bridge
    return f"""
table {table} {{}}
delete table {table}
table {table} {{
  chain input {{
    type filter hook input priority -10; policy accept;
    iifname != "{bridge}" accept
    ct state established,related accept
    drop
  }}
  chain forward {{
    type filter hook forward priority -10; policy accept;
    iifname != "{bridge}" accept
    ct status dnat drop
    ip daddr 169.254.0.0/16 udp dport 53 accept
    ip daddr 169.254.0.0/16 tcp dport 53 accept
    ip daddr {{ 169.254.0.0/16, {", ".join(METADATA)} }} drop
    ip6 daddr {{ fe80::/10, fd00:ec2::254 }} drop
  }}
}}
"""


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
    """Puts our nftables table on the engine's machine: directly as root there, else through a helper container."""

    def __init__(
        self, engine: Engine, options: DockerOptions, *, helper_images: Sequence[str], is_on_host: bool
    ) -> None:
        self._engine = engine
        self._options = options
        self._helper_images = helper_images
        self._direct = is_on_host and os.geteuid() == 0 and shutil.which("nft") is not None
        self.problem = "not applied yet"
        """Why they do not hold; empty when they do."""

    async def apply(self) -> bool:
        """Put them in place. What hinders it is not raised but kept in `problem`: sandboxes run, and users are told."""
        try:
            await self._nft(rules(self._options))
        except RuntimeFailure as failure:
            self.problem = failure.message
            return False
        self.problem = ""
        return True

    async def remove(self) -> None:
        """Take them away again. Raises `RuntimeFailure`."""
        table = f"inet {table_name(self._options)}"
        await self._nft(f"table {table} {{}}\ndelete table {table}\n")
        self.problem = "removed"

    async def _nft(self, script: str) -> None:
        if self._direct:
            await _run_nft(script)
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


async def _run_nft(script: str) -> None:
    process = await asyncio.create_subprocess_exec(
        "nft",
        "-f",
        "-",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, said = await asyncio.wait_for(process.communicate(script.encode()), NFT_SECONDS)
    except TimeoutError as error:
        process.kill()
        await process.wait()
        raise RuntimeFailure("cannot set the network rules: nft does not end") from error
    if process.returncode:
        raise RuntimeFailure(f"cannot set the network rules: {said.decode(errors='replace').strip()}")
