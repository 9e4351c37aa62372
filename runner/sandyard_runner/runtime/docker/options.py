"""What the docker runtime is told, and the names and labels by which it knows its own things again."""

from pathlib import Path

import msgspec

from sandyard.folders import HostFolder

LABEL_INSTALLATION = "dev.sandyard.installation"
"""On everything we make: containers, the network, the image of the default snapshot (there with the value `any`)."""
LABEL_SANDBOX = "dev.sandyard.sandbox"
"""On sandbox containers: the sandbox id."""

LABEL_IMAGE = "dev.sandyard.image"
"""On images that were made from sandboxes: the installation. Such an image has the labels above with empty values."""

LABEL_LINK = "dev.sandyard.link"
"""On networks of linked sandboxes: the id of the one that the others are linked to."""

BUNDLE_MOUNT = "/opt/sandyard"
"""Where a sandbox sees the daemon bundle, read-only."""
DOOR_MOUNT = "/run/sandyard"
"""Where a sandbox sees the directory of its own door."""


class DockerOptions(msgspec.Struct, frozen=True):
    """Settings of the docker runtime. The engine itself is found as `docker` finds it (`DOCKER_HOST` and friends)."""

    installation: str
    """Random identity of this installation, kept over restarts: which containers are ours."""
    data_dir: Path
    """Where the daemon bundle is kept."""
    doors_dir: Path
    """One directory per sandbox, each with that sandbox's door."""
    host_folders: tuple[HostFolder, ...] = ()
    """Folders of the host that sandboxes may mount."""
    default_image: str | None = None
    """Image of the default snapshot; `None` builds our own from the package."""
    debian_mirror: str | None = None
    """For building our own image where Debian's servers are not reachable directly."""
    name_servers: tuple[str, ...] = ()
    """For sandboxes with domain lists or secrets, `address` or `address:port`; none: this machine's."""
    oci_runtime: str | None = None
    """Another OCI runtime the engine knows, such as `runsc`; `None` is the engine's default."""
    build_memory_bytes: int = 4 << 30
    """Memory of one step of a build, without swap."""
    process_limit: int = 4096
    """Processes and threads a sandbox may have at once."""
    start_timeout_seconds: float = 60.0
    """How long a daemon may take until it answers on its door."""

    @property
    def volumes_dir(self) -> Path:
        """One folder per volume."""
        return self.data_dir / "volumes"

    @property
    def short_id(self) -> str:
        """Eight characters of the installation, for names with a length limit; letters and digits only."""
        return "".join(c for c in self.installation.lower() if c.isalnum())[:8]

    @property
    def network(self) -> str:
        """Name of the sandbox network."""
        return f"sandyard-{self.short_id}"

    @property
    def bridge(self) -> str:
        """Name of the network's bridge device, at most 15 characters."""
        return f"sy-{self.short_id}"

    def container(self, sandbox_id: str) -> str:
        """Name of a sandbox's container."""
        return f"sandyard-{sandbox_id}"
