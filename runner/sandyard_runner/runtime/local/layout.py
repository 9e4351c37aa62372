"""What one local sandbox is made of: its directories, its user, its environment, and how its first process starts."""

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sandyard_api.jobs.wire import SandboxSpec
from sandyard_runner.daemon_bundle import Bundle
from sandyard_runner.doors import remove_door
from sandyard_runner.egress.closed import unreachable_networks
from sandyard_runner.errors import RuntimeFailure, Unsupported
from sandyard_runner.runtime.local import network
from sandyard_runner.runtime.local.cgroups import Group
from sandyard_runner.runtime.local.kept_images import KeptImages
from sandyard_runner.runtime.local.launch import Launch
from sandyard_runner.runtime.local.options import Isolation, LocalOptions, Network
from sandyard_runner.runtime.local.process import MARKER
from sandyard_runner.runtime.local.tree import LAID_OUT, USER, Account, Tree, UnknownUser, find_account, sandbox_passwd
from sandyard_runner.volumes import Volumes

BUNDLE_MOUNT = "/opt/sandyard"
DOOR_MOUNT = "/run/sandyard"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
RUN_FILE = "run.json"
SPEC_FILE = "spec.json"


@dataclass(slots=True)
class Layout:
    """Knows where everything of a sandbox is. Methods block; they touch the disk only."""

    options: LocalOptions
    bundle: Bundle
    uplink: network.Uplink | None = None
    """The way out of a sandbox's own network, once one was found to work."""
    hidden: list[str] = field(default_factory=list)
    """Paths below /etc that sandboxes must not see."""

    @property
    def is_isolated(self) -> bool:
        return self.options.isolation is Isolation.NAMESPACES

    @property
    def sandboxes(self) -> Path:
        return self.options.data_dir / "sandboxes"

    @property
    def volumes(self) -> Volumes:
        """What sandboxes share."""
        return Volumes(self.options.volumes_dir, self.options.host_folders)

    @property
    def kept(self) -> KeptImages:
        """What was kept of sandboxes."""
        return KeptImages(self.options.data_dir / "images")

    def base(self, sandbox_id: str) -> Path:
        """The directory of one sandbox."""
        return self.sandboxes / sandbox_id

    def exists(self, sandbox_id: str) -> bool:
        """Whether the sandbox was created and not removed."""
        return (self.base(sandbox_id) / SPEC_FILE).exists()

    def run_file(self, sandbox_id: str) -> Path:
        """Where the processes of the present run are written down."""
        return self.base(sandbox_id) / RUN_FILE

    def account(self, user: str | None) -> Account:
        """Who runs inside. Raises `RuntimeFailure` for a user that does not exist there."""
        if self.is_isolated:
            try:
                return find_account(user, sandbox_passwd())
            except UnknownUser as error:
                raise RuntimeFailure(str(error)) from error
        if user not in (None, USER, "root" if os.geteuid() == 0 else None, str(os.geteuid())):
            raise Unsupported(
                f"without isolation every sandbox runs as the user that runs Sandyard, so {user} cannot be used"
            )
        return Account(USER, os.geteuid(), os.getegid(), "")

    def check_mounts(self, spec: SandboxSpec) -> None:
        """Make what is missing of what it mounts. Raises `RuntimeFailure`, `Unsupported` without namespaces."""
        if spec.mounts and not self.is_isolated:
            raise Unsupported("without isolation nothing can be mounted, so sandboxes cannot have volumes")
        self.volumes.places(spec.mounts)

    def make(self, spec: SandboxSpec) -> None:
        """Lay out the directories; may be repeated. Raises `OSError`."""
        self.check_mounts(spec)
        base = self.base(spec.sandbox_id)
        base.mkdir(parents=True, exist_ok=True, mode=0o700)
        if spec.image is not None and not (base / LAID_OUT).exists():
            self.kept.unpack(spec.image, base, self.is_isolated)
        if self.is_isolated:
            Tree(base).make(self.hidden)
        else:
            (base / "home").mkdir(exist_ok=True)
        (base / SPEC_FILE).write_text(json.dumps({"user": spec.user, "name": spec.name}))

    def delete(self, sandbox_id: str) -> None:
        """Remove everything; gone already is success. One that is cut short is finished by the next start."""
        remove_door(self.options.doors_dir, sandbox_id)
        base = self.base(sandbox_id)
        if base.exists():
            (base / SPEC_FILE).unlink(missing_ok=True)
            Tree(base).remove()

    def plain(self, spec: SandboxSpec, door: Path, run_id: str, group: Group | None) -> Launch:
        """How a sandbox starts without isolation."""
        home = str(self.base(spec.sandbox_id) / "home")
        return Launch(
            command=self.bundle.command(str(self.bundle.path), "--door-dir", str(door)),
            env={**self._environment(spec, home), MARKER: run_id},
            cwd=home,
            log=self._log(spec.sandbox_id),
            die_with_parent=not self.options.keep_running,
            cgroup_procs=group.procs() if group else (),
        )

    def isolated(
        self, spec: SandboxSpec, door: Path, group: Group | None, command: Sequence[str] | None = None
    ) -> Launch:
        """How a sandbox starts in namespaces; `command` instead of the daemon for a trial."""
        account = self.account(spec.user)
        tree = Tree(self.base(spec.sandbox_id))
        has_own_network = self.options.network is not Network.HOST or spec.network_block_all
        uplink = self.uplink
        resolver = network.resolver_configuration(uplink) if has_own_network else network.host_resolver_configuration()
        tree.write_names(spec.sandbox_id, resolver)
        return Launch(
            command=command or self.bundle.command(BUNDLE_MOUNT, "--door-dir", DOOR_MOUNT),
            env=self._environment(spec, account.home),
            cwd=account.home if (tree.files / account.home.lstrip("/")).is_dir() else "/",
            log=self._log(spec.sandbox_id),
            die_with_parent=not self.options.keep_running,
            cgroup_procs=group.procs() if group else (),
            hostname=spec.sandbox_id,
            account=account,
            root=tree.files,
            mounts=tree.mounts(door=door, bundle=self.bundle.path, groups=group.shown() if group else ()),
            folders=self.volumes.places(spec.mounts),
            own_network=has_own_network,
            unreachable=unreachable_networks() if uplink else (),
        )

    def last_words(self, sandbox_id: str) -> str:
        """The last line the sandbox's first process printed."""
        with contextlib.suppress(OSError):
            lines = self._log(sandbox_id).read_text(errors="replace").strip().splitlines()
            if lines:
                return lines[-1][:500]
        return ""

    def _log(self, sandbox_id: str) -> Path:
        return self.base(sandbox_id) / "daemon.log"

    def _environment(self, spec: SandboxSpec, home: str) -> dict[str, str]:
        user = self.account(spec.user).name
        return {
            "PATH": PATH,
            "HOME": home,
            "USER": user,
            "LOGNAME": user,
            "SHELL": "/bin/bash" if Path("/bin/bash").exists() else "/bin/sh",
            "LANG": "C.UTF-8",
            "DAYTONA_SANDBOX_ID": spec.sandbox_id,
            "DAYTONA_SANDBOX_SNAPSHOT": spec.snapshot or "",
            "DAYTONA_SANDBOX_USER": user,
            "DAYTONA_ORGANIZATION_ID": spec.organization_id,
            "DAYTONA_REGION_ID": spec.region,
            **spec.env,
        }
