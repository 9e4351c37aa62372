"""What may be asked of a sandbox's way out. *Source:* control-plane.md 4.4 and 5."""

import ipaddress
import re
from typing import Any
from urllib.parse import urlsplit

import msgspec

from sandyard_api.errors import BadRequest
from sandyard_api.validation import Fields

MAX_ENTRIES = 10
MAX_PREFIX = 32
DOMAIN = re.compile(r"(?=.{1,253}$)(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
LABELS_OF_A_DOMAIN = 2
MAX_URL = 2048
PROXY_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
NOT_IN_URLS = re.compile(r"[^!-~]")
BAD_PROXY = "Invalid outbound proxy URL. Must be http://[user:password@]host[:port], or https, and nothing behind"
NO_LISTS: dict[str, Any] = {"network_block_all": False, "network_allow_list": None, "domain_allow_list": None}
NETWORK_NEEDS = {
    "network_block_all": ("network_block_all", "Blocking the network"),
    "network_allow_list": ("network_allow_list", "A network allow list"),
    "domain_allow_list": ("domain_allow_list", "A domain allow list"),
    "secrets": ("secrets", "Using secrets"),
    "outbound_proxy_url": ("outbound_proxy", "An outbound proxy"),
}
"""Columns, what a runtime must be able to do for them, and how clients are told that it cannot."""


class NetworkWish(msgspec.Struct, frozen=True):
    """Network settings as asked for; `None` says nothing, an empty list takes a list away."""

    block_all: bool | None
    networks: list[str] | None
    domains: list[str] | None

    @classmethod
    def read(cls, fields: Fields) -> "NetworkWish":
        """From a body. Raises `BadRequest` with the platform's words."""
        block_all = None if fields.raw("networkBlockAll") is None else fields.boolean("networkBlockAll")
        networks, domains = fields.string("networkAllowList"), fields.string("domainAllowList")
        fields.check()
        return cls(
            block_all,
            None if networks is None else read_networks(networks),
            None if domains is None else read_domains(domains),
        )

    def columns(self) -> dict[str, Any]:
        """What is written, beside what it says nothing of: closing or opening all takes the lists away."""
        values: dict[str, Any] = {}
        if self.block_all is not None:
            values |= {"network_block_all": self.block_all, "network_allow_list": None, "domain_allow_list": None}
        if self.block_all:
            return values
        if self.networks is not None:
            values["network_allow_list"] = ",".join(self.networks) or None
        if self.domains is not None:
            values["domain_allow_list"] = ",".join(self.domains) or None
        if self.networks or self.domains:
            values["network_block_all"] = False
        return values


def read_networks(text: str) -> list[str]:
    """A comma-separated list of IPv4 networks. Raises `BadRequest`."""
    entries = _entries(text)
    if len(entries) > MAX_ENTRIES:
        raise BadRequest(f"Network allow list cannot contain more than {MAX_ENTRIES} networks")
    return [_network(entry) for entry in entries]


def read_domains(text: str) -> list[str]:
    """A comma-separated list of domains. Raises `BadRequest`."""
    entries = _entries(text)
    if len(entries) > MAX_ENTRIES:
        raise BadRequest(f"Domain allow list cannot contain more than {MAX_ENTRIES} domains")
    for entry in entries:
        labels = entry.removeprefix("*.").lower().split(".")
        if not DOMAIN.fullmatch(entry.lower()) or len(labels) < LABELS_OF_A_DOMAIN or labels[-1].isdecimal():
            raise BadRequest(f'Invalid domain: "{entry}". Must be a valid domain name')
    return [entry.lower() for entry in entries]


def read_outbound_proxy(text: str | None) -> str | None:
    """The URL of an HTTP proxy; an empty one is none. Raises `BadRequest`, which does not repeat the credentials."""
    if not text:
        return None
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise BadRequest(BAD_PROXY) from error
    is_odd = len(text) > MAX_URL or NOT_IN_URLS.search(text) or not PROXY_HOST.fullmatch(parts.hostname or "")
    has_more = parts.path not in ("", "/") or parts.query or parts.fragment
    if is_odd or has_more or parts.scheme not in ("http", "https") or port == 0:
        raise BadRequest(BAD_PROXY)
    return text


def without_credentials(url: str) -> str:
    """The URL of a proxy as it may be shown."""
    return urlsplit(url)._replace(netloc=urlsplit(url).netloc.rpartition("@")[2]).geturl()


def _entries(text: str) -> list[str]:
    return [entry.strip() for entry in text.split(",") if entry.strip()]


def _network(entry: str) -> str:
    address, slash, prefix = entry.partition("/")
    if not slash:
        raise BadRequest(f'Invalid network format: "{entry}". Missing CIDR prefix length (e.g., /24)')
    try:
        ipaddress.IPv4Address(address)
    except ValueError as error:
        raise BadRequest(
            f'Invalid IP address: "{address}" in network "{entry}". Must be a valid IPv4 address'
        ) from error
    if not (prefix.isascii() and prefix.isdecimal() and int(prefix[:3]) <= MAX_PREFIX):
        raise BadRequest(f"Invalid CIDR prefix length: {prefix}. Prefix must be between 0 and {MAX_PREFIX}")
    return f"{address}/{int(prefix)}"
