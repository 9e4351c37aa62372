"""Hosts of a test: network namespaces of our own behind a bridge, where servers run that sandboxes try to reach.

Their addresses are from networks that nobody has (RFC 5737, RFC 2544), another one for each process of a test run.
"""

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
NETWORK = f"198.18.{_WORKER}" if _WORKER else "198.51.100"
SERVER = Path(__file__).with_name("host_server.py")
PROXY = Path(__file__).with_name("proxy_server.py")
TALKING = Path(__file__).with_name("talking_server.py")


@dataclass
class Host:
    """One host: what it serves, it serves in its own namespace."""

    name: str
    address: str
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *arguments: str, server: Path = SERVER) -> None:
        """Serve: see the script for what it takes; returns when it listens."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.name, sys.executable, str(server), *arguments], stdout=subprocess.PIPE
        )
        self._processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"

    def close(self) -> None:
        """End its servers."""
        for process in self._processes:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


@dataclass
class Network:
    """Makes hosts."""

    bridge: str
    hosts: list[Host] = field(default_factory=list)

    def host(self, number: int) -> Host:
        """A host with that number in the network."""
        name, address = f"{self.bridge}h{number}", f"{NETWORK}.{number}"
        ip("netns", "add", name)
        ip("link", "add", f"{name}o", "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("link", "set", f"{name}o", "master", self.bridge, "up")
        ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", name, "link", "set", "lo", "up")
        ip("-n", name, "route", "add", "default", "via", f"{NETWORK}.1")
        made = Host(name, address)
        self.hosts.append(made)
        return made


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@contextlib.contextmanager
def open_network() -> Iterator[Network]:
    """A network that this machine routes to, without any way from it to the world; nothing is left of it."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and ip(8)")
    network = Network(f"tn{secrets.token_hex(2)}")
    ip("link", "add", network.bridge, "type", "bridge")
    # A machine with an engine drops by default what it forwards; one without iptables has nobody's rules for that.
    ways = ("-i", "-o") if shutil.which("iptables") else ()
    forward = [["FORWARD", way, network.bridge, "-j", "ACCEPT"] for way in ways]
    try:
        ip("addr", "add", f"{NETWORK}.1/24", "dev", network.bridge)
        ip("link", "set", network.bridge, "up")
        for rule in forward:
            subprocess.run(["iptables", "-w", "-I", *rule], check=True, capture_output=True)
        yield network
    finally:
        for rule in forward:
            subprocess.run(["iptables", "-w", "-D", *rule], check=False, capture_output=True)
        for host in network.hosts:
            host.close()
            ip("netns", "del", host.name)
        ip("link", "del", network.bridge)
