"""What one sandbox may reach, as data."""

import base64
import ipaddress
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

import msgspec

from sandyard.concealing import Concealing
from sandyard_api.jobs.wire import SandboxSpec, SecretGrant


class OutboundProxy(Concealing, frozen=True):
    """An HTTP proxy between a sandbox and the world."""

    concealed = frozenset({"credentials"})

    host: str
    port: int
    is_tls: bool
    credentials: str | None = None
    """User name and password with a colon between."""

    @classmethod
    def of(cls, url: str) -> "OutboundProxy":
        """From `http://user:password@host:port`, which the control plane has checked."""
        parts = urlsplit(url)
        is_tls = parts.scheme == "https"
        credentials = None if parts.username is None else f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        return cls(parts.hostname or "", parts.port or (443 if is_tls else 80), is_tls, credentials)

    @property
    def name(self) -> str:
        """For messages, without the credentials."""
        return f"{self.host}:{self.port}"

    def headers(self) -> list[tuple[str, str]]:
        """What it is told with each request."""
        if self.credentials is None:
            return []
        return [("Proxy-Authorization", "Basic " + base64.b64encode(self.credentials.encode()).decode())]


class Policy(msgspec.Struct, frozen=True):
    """The rules of one sandbox. Host, link-local and metadata addresses are closed whatever it says."""

    block_all: bool = False
    networks: tuple[str, ...] = ()
    """IPv4 networks; with the domains all that may be reached, unless both are empty."""
    domains: tuple[str, ...] = ()
    """Lower-case names, or `*.` and one: that stands for every name below it, not for the name itself."""
    secrets: tuple[SecretGrant, ...] = ()
    outbound_proxy: OutboundProxy | None = None
    """Through which its HTTP goes; with domains their only way."""

    @classmethod
    def of(cls, spec: SandboxSpec) -> "Policy":
        """What a spec asks for."""
        return cls(
            spec.network_block_all,
            tuple(spec.network_allow_list),
            tuple(spec.domain_allow_list),
            spec.secrets,
            OutboundProxy.of(spec.outbound_proxy_url) if spec.outbound_proxy_url else None,
        )

    @property
    def is_listed(self) -> bool:
        """Whether only what is in a list may be reached."""
        return not self.block_all and bool(self.networks or self.domains)

    @property
    def needs_services(self) -> bool:
        """Whether the sandbox needs our name server or proxy."""
        return self.needs_proxy or (not self.block_all and bool(self.domains))

    @property
    def needs_proxy(self) -> bool:
        """Whether its HTTP goes through our proxy."""
        return not self.block_all and bool(self.secrets or self.outbound_proxy)

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
