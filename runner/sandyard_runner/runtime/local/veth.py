"""A way out for root where neither slirp4netns nor pasta is installed: a veth pair for each sandbox, and NAT.

Everything is named after the installation, so that the next start finds and removes what a killed one left.
"""

import asyncio
import json
import os
import shutil
import zlib
from collections.abc import Collection
from pathlib import Path

import structlog

from sandyard_runner.egress.closed import METADATA
from sandyard_runner.egress.nft import run_nft
from sandyard_runner.errors import RuntimeFailure

log = structlog.get_logger(__name__)

PROGRAMS = ("ip", "nft", "iptables")
SECONDS = 10.0
BLOCK = "10.213"
"""Of which each sandbox has a network of four addresses."""
NETWORKS = 1 << 14
DEVICES = Path("/sys/class/net")
IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


def can_be_used() -> bool:
    """Whether the programs are there; that root runs us is the caller's to know."""
    return all(shutil.which(program) for program in PROGRAMS)


class Veth:
    """Makes pairs. `key` is a directory that no other installation has."""

    def __init__(self, key: Path) -> None:
        self._prefix = f"sv{zlib.crc32(str(key).encode()) & 0xFFFF:04x}"
        self._marker = key / "veth"
        self._table = f"inet sandyard_{self._prefix}"
        self._lock = asyncio.Lock()
        self._is_open = False

    async def connect(self, sandbox_id: str, pid: int) -> None:
        """Give the network namespace of a process an `eth0` with a way out. Raises `RuntimeFailure`."""
        async with self._lock:
            if not self._is_open:
                await self._open()
                self._is_open = True
            name, number = self._name(sandbox_id), await _free_network()
            host, inner = (f"{BLOCK}.{number >> 6}.{(number & 63) * 4 + place}" for place in (1, 2))
            await _run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
            await _run("ip", "addr", "add", f"{host}/30", "dev", name)
            await _run("ip", "link", "set", name, "up")
        within = ("nsenter", f"--target={pid}", "--net", "--", "ip")
        await _run(*within, "addr", "add", f"{inner}/30", "dev", "eth0")
        await _run(*within, "link", "set", "eth0", "up")
        await _run(*within, "route", "add", "default", "via", host)

    async def disconnect(self, sandbox_id: str) -> None:
        """Take it away again; gone already is success."""
        if self.is_connected(sandbox_id):
            await _try("ip", "link", "del", self._name(sandbox_id))

    def is_connected(self, sandbox_id: str) -> bool:
        """Whether it has a pair now."""
        return (DEVICES / self._name(sandbox_id)).exists()

    async def sweep(self, keep: Collection[str] = ()) -> None:
        """Remove what of this installation nobody of `keep` uses: links, and with the last one rules and table."""
        if not self._marker.exists():
            return
        kept = {self._name(sandbox_id) for sandbox_id in keep}
        for name in os.listdir(DEVICES):
            if name.startswith(self._prefix) and name not in kept:
                log.info("link_swept", name=name)
                await _try("ip", "link", "del", name)
        if any(self.is_connected(sandbox_id) for sandbox_id in keep):
            return
        for rule in self._forward():
            while await _try("iptables", "-w", "-D", *rule):
                pass
        await run_nft(f"table {self._table} {{}}\ndelete table {self._table}\n")
        self._is_open = False
        self._marker.unlink(missing_ok=True)

    async def _open(self) -> None:
        self._marker.touch()
        await run_nft(self._rules())
        for rule in self._forward():
            # A machine with an engine drops by default what it forwards.
            if not await _try("iptables", "-w", "-C", *rule):
                await _run("iptables", "-w", "-I", *rule)
        _enable_forwarding()

    def _rules(self) -> str:
        links = f'"{self._prefix}*"'
        return f"""
table {self._table} {{}}
delete table {self._table}
table {self._table} {{
  chain postrouting {{
    type nat hook postrouting priority 100; policy accept;
    iifname {links} oifname != {links} masquerade
  }}
  chain input {{
    type filter hook input priority -10; policy accept;
    iifname != {links} accept
    ct state established,related accept
    drop
  }}
  chain forward {{
    type filter hook forward priority -10; policy accept;
    iifname != {links} accept
    oifname {links} drop
    ct status dnat drop
    ip daddr {{ 169.254.0.0/16, {", ".join(METADATA)} }} drop
  }}
}}
"""

    def _forward(self) -> list[list[str]]:
        links = f"{self._prefix}+"
        back = ["-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED"]
        return [["FORWARD", "-i", links, "-j", "ACCEPT"], ["FORWARD", "-o", links, *back, "-j", "ACCEPT"]]

    def _name(self, sandbox_id: str) -> str:
        return f"{self._prefix}{zlib.crc32(sandbox_id.encode()):08x}"


def _enable_forwarding() -> None:
    if IP_FORWARD.read_text().strip() == "0":
        IP_FORWARD.write_text("1")
        log.warning("forwarding_enabled", path=str(IP_FORWARD))


async def _free_network() -> int:
    """The first of our networks that no link of this machine has."""
    listed = json.loads(await _run("ip", "-j", "-4", "addr") or "[]")
    taken = {item["local"] for link in listed for item in link.get("addr_info", ()) if "local" in item}
    for number in range(NETWORKS):
        if f"{BLOCK}.{number >> 6}.{(number & 63) * 4 + 1}" not in taken:
            return number
    raise RuntimeFailure("every network for sandboxes is taken")


async def _run(*command: str) -> str:
    """What a program prints. Raises `RuntimeFailure`."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(SECONDS):
            out, said = await process.communicate()
    except TimeoutError as error:
        process.kill()
        await process.wait()
        raise RuntimeFailure(f"{command[0]} does not end") from error
    if process.returncode:
        raise RuntimeFailure(f"cannot connect the sandbox's network: {said.decode(errors='replace').strip()}")
    return out.decode()


async def _try(*command: str) -> bool:
    try:
        await _run(*command)
    except RuntimeFailure:
        return False
    return True
