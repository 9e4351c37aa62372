"""The network that sandboxes go out by, as our services use it: this machine's own, or that of the engine's machine."""

import ipaddress
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from sandyard_runner.egress.closed import METADATA, closed_networks

FILES = ("/proc/net/fib_trie", "/proc/net/route", "/etc/resolv.conf")
"""Addresses, routes and name servers of a machine."""


class Outside(Protocol):
    """Gives sockets of that network, and what is to be known of it. Each method raises `OSError`."""

    async def make_socket(
        self, kind: socket.SocketKind, family: socket.AddressFamily = socket.AF_INET
    ) -> socket.socket:
        """A fresh one, which does not block; the caller closes it."""

    async def read(self) -> Sequence[str]:
        """The texts of `FILES` as they are now."""


class Here:
    """This machine's own network."""

    async def make_socket(
        self, kind: socket.SocketKind, family: socket.AddressFamily = socket.AF_INET
    ) -> socket.socket:
        """See `Outside`."""
        made = socket.socket(family, kind)
        made.setblocking(False)
        return made

    async def read(self) -> Sequence[str]:
        """See `Outside`."""
        return read_files()


def read_files() -> list[str]:
    """The texts of `FILES`; empty where one cannot be read."""
    return [_text(path) for path in FILES]


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


async def open_addresses(outside: Outside, found: Sequence[str]) -> list[str]:
    """Those of these IPv4 addresses that a sandbox may reach, if its own rules say so."""
    trie, route, _ = await outside.read()
    closed = [ipaddress.ip_network(each, strict=False) for each in (*closed_networks(trie, route), *METADATA)]
    return [address for address in found if not _is_closed(ipaddress.IPv4Address(address), closed)]


def _is_closed(number: ipaddress.IPv4Address, closed: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    if number.is_loopback or number.is_multicast or number.is_unspecified or number.is_reserved:
        return True
    return any(number in network for network in closed)
