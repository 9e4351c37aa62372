"""What the proxy is told when it is opened."""

from pathlib import Path

import msgspec


class ProxyOptions(msgspec.Struct, frozen=True):
    """Settings of one proxy. All have been validated by whoever read them."""

    doors_dir: Path
    """Holds `<sandbox_id>/door.sock`; sandboxes that have no directory here are reached through their runner."""
    allowed_hosts: tuple[str, ...] = ()
    """Host names beside loopback under which clients may come; subdomains included."""
    public_url: str | None = None
    """Origin under which clients know us; its host is allowed."""
    trust_forwarded: bool = False
    """Believe `X-Forwarded-*` of clients: another proxy that sets them stands before us."""
    preview_warning: bool = False
    """Browsers see a page that warns of foreign content before a preview."""
    version: str = ""
    """Shown by `/health`."""
    journal: bool = False
    """Whether requests are recorded from the start on."""
