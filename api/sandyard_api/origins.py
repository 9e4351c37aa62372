"""URLs follow the client: the origin a request was addressed to, whether it is ours, and the URLs made from it."""

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from sandyard.hosts import HostRules
from sandyard_api.errors import BadRequest, ForeignHost

DAEMON_PORT = 2280
"""The one port whose preview URL is the plain origin: the token alone says which sandbox is meant."""
DEFAULT_PORTS = {"http": 80, "https": 443}


class Origin(msgspec.Struct, frozen=True):
    """Scheme and authority under which a client reaches us, such as `http` and `127.0.0.1:3986`."""

    scheme: str
    authority: str

    @property
    def url(self) -> str:
        """Without a path and without a trailing slash."""
        return f"{self.scheme}://{self.authority}"

    @property
    def is_loopback(self) -> bool:
        """Whether the client is on this machine, by the name it uses for us."""
        host = split_authority(self.authority)[0]
        return host == "localhost" or host.endswith(".localhost") or is_loopback_address(host)

    @property
    def toolbox_url(self) -> str:
        """Clients append `/{sandbox id}{path}`."""
        return f"{self.url}/toolbox"

    def preview_url(self, sandbox_id: str, port: int, *, as_path: bool = False) -> str:
        """Where a port of a sandbox is served. A loopback address cannot carry a subdomain: `localhost` stands in."""
        return self.url if port == DAEMON_PORT else self.signed_preview_url(sandbox_id, port, as_path=as_path)

    def signed_preview_url(self, token: str, port: int, *, as_path: bool = False) -> str:
        """The URL that a token opens by itself. `as_path`: on our own origin, where names of hosts cannot be had."""
        if as_path:
            return f"{self.url}/preview/{token}/{port}/"
        return f"{self.scheme}://{port}-{token}.{self._preview_domain}"

    @property
    def preview_template_url(self) -> str:
        """Preview URLs with placeholders, as the platform's clients know them."""
        return f"{self.scheme}://{{{{PORT}}}}-{{{{sandboxId}}}}.{self._preview_domain}"

    @property
    def _preview_domain(self) -> str:
        host, tail = split_authority(self.authority)
        return ("localhost" if is_loopback_address(host) else host) + tail

    def ssh_command(self, port: int, token: str) -> str:
        """What logs in with a token. The platform's command line splits it at spaces and runs what follows `ssh`."""
        return f"ssh -p {port} {token}@{split_authority(self.authority)[0]}"

    def build_logs_url(self, sandbox_id: str) -> str:
        """Without a query: clients append `?follow=true`."""
        return f"{self.url}/api/sandbox/{sandbox_id}/build-logs"


def split_authority(authority: str) -> tuple[str, str]:
    """Host in lower case without brackets, and `:port` or nothing. Raises `BadRequest`."""
    try:
        parts = urlsplit(f"//{authority}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise BadRequest("Host header is malformed") from error
    if not host or parts.username is not None or parts.path or parts.query or parts.fragment:
        raise BadRequest("Host header is malformed")
    return host, "" if port is None else f":{port}"


class Origins:
    """Finds the origin of requests and refuses foreign ones."""

    def __init__(self, *, public_url: str | None, allowed_hosts: Iterable[str], trust_forwarded: bool) -> None:
        self._public = parse_origin(public_url) if public_url else None
        self._rules = HostRules.of(allowed_hosts, public_url)
        self._trust_forwarded = trust_forwarded

    def of(self, scope: Mapping[str, Any]) -> Origin:
        """The origin for the URLs in an answer. Raises `ForeignHost` and `BadRequest`."""
        asked = self.asked(scope)
        return self._public or asked

    def asked(self, scope: Mapping[str, Any]) -> Origin:
        """The origin that an ASGI request was addressed to. Raises `ForeignHost` and `BadRequest`."""
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        authority = headers.get(b"host", "")
        scheme = {"ws": "http", "wss": "https"}.get(scope["scheme"], scope["scheme"])
        if self._trust_forwarded:
            authority, scheme = _forwarded(headers, authority, scheme)
        host, _ = split_authority(authority)
        if not self._rules.accepts(authority, (scope.get("server") or (None,))[0]):
            raise ForeignHost(f"Host {host!r} is not one of ours; SANDYARD_ALLOWED_HOSTS takes more names")
        return Origin(scheme, authority.lower())

    def check_origin_header(self, value: str, own: Origin) -> None:
        """Refuse a WebSocket that a page of another site opens. Raises `ForeignHost`."""
        parts = urlsplit(value)
        if parts.scheme in DEFAULT_PORTS and self._rules.accepts(parts.netloc):
            return
        if value.rstrip("/") != own.url:
            raise ForeignHost(f"Origin {value!r} is not one of ours; SANDYARD_ALLOWED_HOSTS takes more names")


def parse_origin(url: str) -> Origin:
    """The origin of a URL. Raises `ValueError` for what has none."""
    parts = urlsplit(url)
    if parts.scheme not in DEFAULT_PORTS or not parts.netloc:
        raise ValueError(f"{url!r} is not an http or https URL")
    return Origin(parts.scheme, parts.netloc.lower())


def _forwarded(headers: Mapping[bytes, str], authority: str, scheme: str) -> tuple[str, str]:
    scheme = headers.get(b"x-forwarded-proto", scheme).split(",")[0].strip().lower()
    if scheme not in DEFAULT_PORTS:
        raise BadRequest("X-Forwarded-Proto is malformed")
    if forwarded := headers.get(b"x-forwarded-host", "").split(",")[0].strip():
        authority = forwarded
    port = headers.get(b"x-forwarded-port", "").split(",")[0].strip()
    host, tail = split_authority(authority)
    if port.isdigit() and not tail and int(port) != DEFAULT_PORTS[scheme]:
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return authority, scheme


def is_loopback_address(host: str) -> bool:
    """Whether that is an IP address of this machine's loopback."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
