"""What the local runtime is told."""

from enum import StrEnum
from pathlib import Path

import msgspec

from sandyard.folders import HostFolder


class Isolation(StrEnum):
    """What stands between a sandbox and the host."""

    NAMESPACES = "namespaces"
    NONE = "none"  # plain processes with a home of their own


class Network(StrEnum):
    """The network of sandboxes."""

    AUTO = "auto"  # a network of its own, with the way out that this machine has
    NONE = "none"  # loopback only
    HOST = "host"  # the host's own, asked for by name


class LocalOptions(msgspec.Struct, frozen=True):
    """How local sandboxes are made, and where their files are."""

    data_dir: Path
    """Holds `sandboxes/`, `volumes/` and `bundles/`; nobody else may read it."""
    doors_dir: Path
    isolation: Isolation = Isolation.NAMESPACES
    network: Network = Network.AUTO
    name_servers: tuple[str, ...] = ()
    """For sandboxes with domain lists or secrets, `address` or `address:port`; none: this machine's."""
    keep_running: bool = False
    """Sandboxes outlive this process and are adopted by the next; otherwise the kernel ends them with it."""
    start_timeout_seconds: float = 60.0
    local_builds: bool = False
    """Steps of Dockerfiles run over the host's directories, whatever their `FROM` says; else builds are refused."""
    host_folders: tuple[HostFolder, ...] = ()
    """Folders of the host that sandboxes may mount."""

    @property
    def volumes_dir(self) -> Path:
        """One folder per volume."""
        return self.data_dir / "volumes"
