"""What `GET /api/config` says; the keys are the protocol's, a typing error in one included."""

from typing import Any

import msgspec

from sandyard_api.options import ControlPlaneOptions
from sandyard_api.origins import Origin
from sandyard_api.sandboxes.requests import MAX_AUTO_ARCHIVE_MINUTES


class Config(msgspec.Struct, rename="camel", kw_only=True):
    """Public settings of the installation. There is no identity provider, so its values are empty."""

    version: str
    oidc: dict[str, str]
    linked_accounts_enabled: bool = False
    announcements: dict[str, Any]
    proxy_template_url: str
    proxy_toolbox_url: str
    default_snapshot: str
    dashboard_url: str
    max_auto_archive_interval: int = MAX_AUTO_ARCHIVE_MINUTES
    maintanance_mode: bool = False
    environment: str
    ssh_gateway_command: str | msgspec.UnsetType = msgspec.UNSET


class PartHealth(msgspec.Struct):
    """`up` or `down`."""

    status: str


class Readiness(msgspec.Struct):
    """What `GET /api/health/ready` says: everything in `details`, and once more by how it is."""

    status: str
    info: dict[str, PartHealth]
    error: dict[str, PartHealth]
    details: dict[str, PartHealth]

    @property
    def is_ready(self) -> bool:
        """Whether every part is up."""
        return not self.error


def config(options: ControlPlaneOptions, origin: Origin) -> Config:
    """The settings as this client should see them."""
    return Config(
        version=options.version,
        oidc={"issuer": "", "clientId": "", "audience": "", "provider": ""},
        announcements={},
        proxy_template_url=origin.preview_template_url,
        proxy_toolbox_url=origin.toolbox_url,
        default_snapshot=options.default_snapshot,
        dashboard_url=f"{origin.url}/dashboard",
        environment="local",
        ssh_gateway_command=(
            msgspec.UNSET if options.ssh_port is None else origin.ssh_command(options.ssh_port, "{{TOKEN}}")
        ),
    )
