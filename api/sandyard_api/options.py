"""What the control plane is told at start. Who reads the environment is not here but in `sandyard.settings`."""

from pathlib import Path

import msgspec

from sandyard.folders import HostFolder
from sandyard_api.quotas.limits import GENEROUS, Limits
from sandyard_api.rates.limits import Rates
from sandyard_api.storage.s3_options import S3Options


class ControlPlaneOptions(msgspec.Struct, frozen=True):
    """Plain values; everything with a lifetime is passed beside them."""

    api_key: str
    """The owner's API key. Only its hash is stored."""
    internal_token: str
    """What runners and proxies send on the internal API."""
    encryption_key: str
    """A Fernet key, for tokens that are shown again."""
    version: str = "0.0.0"
    public_url: str | None = None
    """`scheme://host[:port]` for every URL in answers; `None` makes them from each request."""
    allowed_hosts: tuple[str, ...] = ()
    """Host names beside loopback ones that requests may be addressed to; `*` takes any."""
    trust_forwarded: bool = False
    """Believe X-Forwarded-Host, -Proto and -Port: only where nobody but our proxy can connect."""
    default_snapshot: str = "sandyard-default"
    warm_pool: int = 0
    """How many started sandboxes of the default snapshot wait for whoever asks first; 0: none."""
    warm_retry_seconds: float = 10.0
    """How long a warm pool in which something failed is left alone."""
    region: str = "local"
    """Id and name of the one region; what clients see as `target`."""
    wait_seconds: float = 8.0
    """How long create, start and stop wait for their result before they answer. Java clients read for 10 s at most."""
    lease_seconds: float = 30.0
    timer_seconds: float = 2.0
    """Between two looks at what is due."""
    runner_lost_seconds: float = 60.0
    """A runner is gone when it was silent that long."""
    limits: Limits = GENEROUS
    """What an organization may use."""
    rate_limits: Rates | None = None
    """How often a key may ask, by bucket; `None`: as often as it likes."""
    preview_warning: bool = False
    """Whether browsers see a page that warns of foreign content before a preview; told to clients, shown by proxies."""
    ssh_port: int | None = None
    """Where clients find the SSH gateway, on the host that they use for us; `None` where there is none."""
    destroyed_hours: float = 24.0
    """How long the record of a destroyed sandbox can be read."""
    host_folders: tuple[HostFolder, ...] = ()
    """Folders of the host that sandboxes may mount."""
    storage_dir: Path | None = None
    """Where uploaded build contexts are kept; `None`: no object storage."""
    storage_max_bytes: int = 10 << 30
    storage_max_object_bytes: int = 2 << 30
    context_hours: float = 24.0
    """How long an uploaded context is kept that nothing refers to, from when somebody last looked for it; likewise a
    pushed image."""
    registry_dir: Path | None = None
    """Where pushed images are kept; `None`: no registry of our own."""
    registry_max_bytes: int = 20 << 30
    external_storage: S3Options | None = None
    """Another object storage for build contexts, instead of `storage_dir`."""
    storage_https_port: int | None = None
    """Where the object storage is served over https, too; `None`: nowhere."""
