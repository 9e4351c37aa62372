"""Which names we answer to: a foreign Host header means that somebody pointed their own name at us (DNS rebinding)."""

import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

import msgspec


def host_name(host: str) -> str:
    """The name in a Host header or URL authority: lower case, without port, brackets and final dot."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    name = host.rpartition(":")[0] if host.count(":") == 1 else host
    return name.rstrip(".").lower()


ANY = "*"
"""Among the allowed names: do not look at the Host header at all."""


class HostRules(msgspec.Struct, frozen=True):
    """Accepts loopback, `localhost` and what lies below it, the machine's own name, the address that was connected to,
    and the names given, each with its subdomains (previews live there)."""

    names: frozenset[str]

    @classmethod
    def of(cls, allowed: Iterable[str] = (), public_url: str | None = None) -> "HostRules":
        """Rules that accept `allowed` names, also written `*.name`, and the host of `public_url`."""
        names = {host_name(name.strip().removeprefix("*.")) for name in allowed}
        names |= {"localhost", socket.gethostname().lower()}
        if public_url:
            names.add(urlsplit(public_url).hostname or "")
        return cls(frozenset(names - {""}))

    def accepts(self, host: str | None, server: str | None = None) -> bool:
        """Whether `host` (a Host header, with or without port) is ours. `server` is the address connected to."""
        if not host:
            return False
        if ANY in self.names:
            return True
        name = host_name(host)
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return any(name == own or name.endswith("." + own) for own in self.names)
        return address.is_loopback or name in self.names or (server is not None and name == host_name(server))


def same_origin(origin: str | None, host: str | None) -> bool:
    """Whether an Origin header names the host and port that the request came to; without one it did not cross sites."""
    if origin is None:
        return True
    parts = urlsplit(origin)
    return bool(host) and parts.netloc.lower() == (host or "").lower()
