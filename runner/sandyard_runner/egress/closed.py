"""Addresses that no sandbox may reach: the machine's own, container networks, link-local, metadata services."""

import socket
import struct
from collections.abc import Sequence
from pathlib import Path

LINK_LOCAL = "169.254.0.0/16"
"""Link-local addresses, among them every cloud's metadata service."""
METADATA = ("100.100.100.200", "168.63.129.16", "192.0.0.192")
"""Metadata services outside the link-local range: Alibaba, Azure, Oracle."""
CONTAINER_BRIDGES = ("docker", "br-", "podman", "cni", "virbr", "lxcbr", "sy-")
TRIE, ROUTE = "/proc/net/fib_trie", "/proc/net/route"


def unreachable_networks() -> list[str]:
    """What a sandbox must not reach of this machine: see `closed_networks`."""
    return closed_networks("\n".join(_lines(TRIE)), "\n".join(_lines(ROUTE)))


def closed_networks(trie: str, route: str) -> list[str]:
    """The machine's own addresses, container networks, link-local, from its kernel's tables as proc(5) has them."""
    return sorted({LINK_LOCAL, *_own_addresses(trie), *_bridge_networks(route)})


def routes(path: str) -> Sequence[str]:
    """The lines of a routing table as proc(5) has it, without its head; none where it cannot be read."""
    return _lines(path)[1:]


def _lines(path: str) -> Sequence[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _own_addresses(trie: str) -> set[str]:
    """Every IPv4 address of the machine but loopback."""
    found: set[str] = set()
    address = ""
    for line in trie.splitlines():
        if "|--" in line:
            address = line.split("|--")[1].strip()
        elif "/32 host LOCAL" in line and not address.startswith("127."):
            found.add(f"{address}/32")
    return found


def _bridge_networks(route: str) -> set[str]:
    found: set[str] = set()
    for line in route.splitlines()[1:]:
        fields = line.split()
        if fields[0].startswith(CONTAINER_BRIDGES) and fields[1] != "00000000":
            address = socket.inet_ntoa(struct.pack("<I", int(fields[1], 16)))
            found.add(f"{address}/{int(fields[7], 16).bit_count()}")
    return found
