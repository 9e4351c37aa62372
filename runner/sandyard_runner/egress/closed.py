"""Addresses that no sandbox may reach: this machine's own, container networks, link-local, metadata services."""

import contextlib
import ipaddress
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

LINK_LOCAL = "169.254.0.0/16"
"""Link-local addresses, among them every cloud's metadata service."""
METADATA = ("100.100.100.200", "168.63.129.16", "192.0.0.192")
"""Metadata services outside the link-local range: Alibaba, Azure, Oracle."""
CONTAINER_BRIDGES = ("docker", "br-", "podman", "cni", "virbr", "lxcbr", "sy-")


def unreachable_networks() -> list[str]:
    """What a sandbox must not reach: the host's own addresses, container networks, link-local."""
    return sorted({LINK_LOCAL, *_own_addresses(), *_bridge_networks()})


def is_closed(address: str) -> bool:
    """Whether no sandbox may reach that IPv4 address, whatever its rules say."""
    number = ipaddress.IPv4Address(address)
    if number.is_loopback or number.is_multicast or number.is_unspecified or number.is_reserved:
        return True
    closed = (*unreachable_networks(), *METADATA)
    return any(number in ipaddress.ip_network(network, strict=False) for network in closed)


def routes(path: str) -> Sequence[str]:
    """The lines of a routing table as proc(5) has it, without its head; none where it cannot be read."""
    try:
        return Path(path).read_text().splitlines()[1:]
    except OSError:
        return []


def _own_addresses() -> set[str]:
    """Every IPv4 address of this machine but loopback, from the kernel's routing trie."""
    found: set[str] = set()
    address = ""
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/fib_trie").read_text().splitlines():
            if "|--" in line:
                address = line.split("|--")[1].strip()
            elif "/32 host LOCAL" in line and not address.startswith("127."):
                found.add(f"{address}/32")
    return found


def _bridge_networks() -> set[str]:
    found: set[str] = set()
    for line in routes("/proc/net/route"):
        fields = line.split()
        if fields[0].startswith(CONTAINER_BRIDGES) and fields[1] != "00000000":
            address = socket.inet_ntoa(struct.pack("<I", int(fields[1], 16)))
            found.add(f"{address}/{int(fields[7], 16).bit_count()}")
    return found
