"""What one sandbox may reach, as data."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from sandyard_api.jobs.wire import SandboxSpec, SecretGrant


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of one sandbox. Host, link-local and metadata addresses are closed whatever it says."""

    block_all: bool = False
    networks: tuple[str, ...] = ()
    """IPv4 networks; with the domains all that may be reached, unless both are empty."""
    domains: tuple[str, ...] = ()
    """Lower-case names, or `*.` and one: that stands for every name below it, not for the name itself."""
    secrets: tuple[SecretGrant, ...] = ()

    @classmethod
    def of(cls, spec: SandboxSpec) -> "Policy":
        """What a spec asks for."""
        return cls(spec.network_block_all, tuple(spec.network_allow_list), tuple(spec.domain_allow_list), spec.secrets)

    @property
    def is_listed(self) -> bool:
        """Whether only what is in a list may be reached."""
        return not self.block_all and bool(self.networks or self.domains)

    @property
    def needs_services(self) -> bool:
        """Whether the sandbox needs our name server or proxy."""
        return not self.block_all and bool(self.domains or self.secrets)

    def allows_name(self, name: str) -> bool:
        """Whether its addresses may be looked up and reached."""
        return not self.block_all and matches(name, self.domains)

    def allows(self, name: str, address: str) -> bool:
        """Whether an address may be reached to which that name led."""
        if self.block_all:
            return False
        if not self.is_listed or matches(name, self.domains):
            return True
        number = ipaddress.ip_address(address)
        return any(number in ipaddress.ip_network(network, strict=False) for network in self.networks)

    def secrets_for(self, host: str) -> list[SecretGrant]:
        """Those that may be sent there."""
        return [grant for grant in self.secrets if not grant.hosts or matches(host, grant.hosts)]


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a host name is one of the patterns, or below one that begins with `*.`."""
    plain = name.lower().rstrip(".")
    return any(plain.endswith(each[1:]) if each.startswith("*.") else plain == each for each in patterns)
