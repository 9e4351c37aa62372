"""Sandboxes whose way out has rules of their own, and how they are kept over restarts."""

import json
import secrets
import time
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from sandyard_runner.egress.policy import Policy

PROXY_PORT = 3128
"""Where sandboxes find our proxy, at their gateway, whatever port it has today."""


class Ports(msgspec.Struct, frozen=True):
    """Where our services listen on the bridge's address."""

    names: int
    name_streams: int
    proxy: int


class Held(msgspec.Struct):
    """One sandbox with rules of its own."""

    sandbox_id: str
    address: str
    policy: Policy
    mark: int = msgspec.field(default_factory=lambda: secrets.randbits(30) | 1)
    """On its connections that these rules allowed; other rules have another."""
    _names: dict[str, float] = msgspec.field(default_factory=dict)

    @property
    def chain(self) -> str:
        """Name of its chain; nft takes no dashes."""
        return f"sandbox_{zlib.crc32(self.sandbox_id.encode()):08x}"

    @property
    def names_set(self) -> str:
        """Name of the set of addresses that its domains led to."""
        return f"names_{zlib.crc32(self.sandbox_id.encode()):08x}"

    def note_names(self, found: Iterable[tuple[str, int]]) -> None:
        """Remember what was looked up, for the next time that the table is written."""
        now = time.monotonic()
        self._names = {address: until for address, until in self._names.items() if until > now}
        self._names |= {address: now + seconds for address, seconds in found}

    def names_left(self) -> list[tuple[str, int]]:
        """Addresses that are still open, each with its seconds."""
        now = time.monotonic()
        return [(address, int(until - now)) for address, until in self._names.items() if until - now >= 1]


def save(path: Path, held: Sequence[Held]) -> None:
    """Write down the rules; secrets are not among them, they come again with the next comparison."""
    items = [
        {
            "sandbox_id": each.sandbox_id,
            "address": each.address,
            "mark": each.mark,
            "networks": each.policy.networks,
            "domains": each.policy.domains,
        }
        for each in held
        if each.policy.is_listed
    ]
    scratch = path.with_suffix(".new")
    scratch.write_text(json.dumps(items))
    scratch.replace(path)


def load(path: Path) -> list[Held]:
    """What was written down; nothing where that cannot be read."""
    try:
        items = json.loads(path.read_text())
    except (OSError, ValueError):
        return []
    return [
        Held(
            item["sandbox_id"],
            item["address"],
            Policy(networks=tuple(item["networks"]), domains=tuple(item["domains"])),
            item["mark"],
        )
        for item in items
    ]
