"""What one local sandbox is made of: its directories, its user, its environment, and how its first process starts."""

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from sandyard_api.jobs.wire import SNAPSHOT_REPOSITORY, SandboxSpec
from sandyard_runner.daemon_bundle import Bundle
from sandyard_runner.doors import remove_door
from sandyard_runner.egress.closed import unreachable_networks
from sandyard_runner.errors import RuntimeFailure, Unsupported
from sandyard_runner.runtime.local import network
from sandyard_runner.runtime.local.cgroups import Group
from sandyard_runner.runtime.local.kept_images import KeptImages
from sandyard_runner.runtime.local.launch import Launch
from sandyard_runner.runtime.local.layers import Footing, ImageConfig, Layers
from sandyard_runner.runtime.local.options import Isolation, LocalOptions, Network
from sandyard_runner.runtime.local.process import MARKER
from sandyard_runner.runtime.local.tree import (
    LAID_OUT,
    USER,
    Account,
    Tree,
    UnknownUser,
    find_account,
    sandbox_group,
    sandbox_passwd,
)
from sandyard_runner.volumes import Volumes

BUNDLE_MOUNT = "/opt/sandyard"
DOOR_MOUNT = "/run/sandyard"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HIDDEN_FILE = "hidden.json"
"""In the lowest layer of a build: which paths below /etc it hides."""
OUR_IMAGES = tuple(
    f"{SNAPSHOT_REPOSITORY.partition('/')[0]}/{kind}:" for kind in ("build", "snapshot", "archive", "fork")
)
"""How the names of images begin that were made here; no registry has them."""
RUN_FILE = "run.json"
SPEC_FILE = "spec.json"


class Layout(msgspec.Struct):
    """Knows where everything of a sandbox is. Methods block; they touch the disk only."""

    options: LocalOptions
    bundle: Bundle
    uplink: network.Uplink | None = None
    """The way out of a sandbox's own network, once one was found to work."""
    hidden: list[str] = msgspec.field(default_factory=list)
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

    @property
    def layers(self) -> Layers:
        """What builds over the host left."""
        return Layers(self.options.data_dir / "layers")

    def holders(self) -> list[Path]:
        """The folders of everything that may stand on layers."""
        return [*self.sandboxes.iterdir(), *self.kept.folders()]

    def base(self, sandbox_id: str) -> Path:
        """The directory of one sandbox."""
        return self.sandboxes / sandbox_id

    def exists(self, sandbox_id: str) -> bool:
        """Whether the sandbox was created and not removed."""
        return (self.base(sandbox_id) / SPEC_FILE).exists()

    def run_file(self, sandbox_id: str) -> Path:
        """Where the processes of the present run are written down."""
        return self.base(sandbox_id) / RUN_FILE

    def is_host(self, image: str | None) -> bool:
        """Whether the host's own directories are what stands for an image that somebody else made."""
        return image is None or (self.options.local_builds and not image.startswith(OUR_IMAGES))

    def footing(self, spec: SandboxSpec) -> Footing:
        """What a sandbox stands on, or will once it is made. Raises `RuntimeFailure`."""
        found = Footing.load(self.base(spec.sandbox_id))
        if found is None and spec.image is not None and not self.exists(spec.sandbox_id):
            found = self.kept.footing(spec.image)
        return found or Footing(())

    def tree(self, base: Path, layers: Sequence[str]) -> Tree:
        """The directories of what is in `base` and stands on `layers`. Raises `RuntimeFailure` where one is gone."""
        return Tree(base, self.layers.paths(layers))

    def account(self, spec: SandboxSpec) -> Account:
        """Who runs inside. Raises `RuntimeFailure` for a user that does not exist there."""
        if self.is_isolated:
            footing = self.footing(spec)
            return self.account_in(self.tree(self.base(spec.sandbox_id), footing.layers), spec.user, footing.config)
        user = spec.user
        if user not in (None, USER, "root" if os.geteuid() == 0 else None, str(os.geteuid())):
            raise Unsupported(
                f"without isolation every sandbox runs as the user that runs Sandyard, so {user} cannot be used"
            )
        return Account(USER, os.geteuid(), os.getegid(), "")

    def account_in(self, tree: Tree, user: str | None, config: ImageConfig) -> Account:
        """Who runs in a tree: the user asked for, else the image's, else root as in other images.

        Where all files have one owner anyway, because an ordinary user runs us, the last is the usual one.
        """
        wanted = user or config.user or ("root" if tree.layers and os.geteuid() == 0 else None)
        try:
            return find_account(
                wanted, tree.accounts("passwd") or sandbox_passwd(), tree.accounts("group") or sandbox_group()
            )
        except UnknownUser as error:
            raise RuntimeFailure(str(error)) from error

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
        if spec.image is not None and not self.is_host(spec.image) and not (base / LAID_OUT).exists():
            self.kept.unpack(spec.image, base, self.is_isolated)
        if self.is_isolated:
            tree = self.tree(base, self.footing(spec).layers)
            tree.make(self.hidden)
            if tree.layers:
                tree.hide(self._hidden_since(tree.layers[-1]))
        else:
            (base / "home").mkdir(exist_ok=True)
        (base / SPEC_FILE).write_text(json.dumps({"user": spec.user, "name": spec.name}))

    def make_ground(self, base: Path, resolver: str) -> None:
        """The lowest layer of every build: a fresh sandbox's directories. Raises `OSError`."""
        tree = Tree(base)
        tree.make(self.hidden)
        tree.write_names("build", resolver)
        (base / HIDDEN_FILE).write_text(json.dumps(self.hidden))

    def _hidden_since(self, ground: Path) -> list[str]:
        """What must be hidden and was not there, or could be seen by all, when the ground was made."""
        before = set(json.loads((ground / HIDDEN_FILE).read_text()))
        return [path for path in self.hidden if path not in before]

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
        footing, account = self.footing(spec), self.account(spec)
        tree = self.tree(self.base(spec.sandbox_id), footing.layers)
        has_own_network = self.options.network is not Network.HOST or spec.network_block_all
        tree.write_names(spec.sandbox_id, self.resolver(has_own_network=has_own_network))
        return Launch(
            command=command or self.bundle.command(BUNDLE_MOUNT, *_daemon_arguments(spec, footing.config)),
            env=self._environment(spec, account.home, footing.config),
            cwd=account.home if tree.shows_directory(account.home) else "/",
            log=self._log(spec.sandbox_id),
            die_with_parent=not self.options.keep_running,
            cgroup_procs=group.procs() if group else (),
            hostname=spec.sandbox_id,
            account=account,
            root=tree.files,
            root_overlay=tree.root_overlay(),
            mounts=tree.mounts(door=door, bundle=self.bundle.path, groups=group.shown() if group else ()),
            folders=self.volumes.places(spec.mounts),
            own_network=has_own_network,
            unreachable=self.unreachable(),
        )

    def unreachable(self) -> Sequence[str]:
        """Networks that a network namespace with a way out must not reach."""
        return unreachable_networks() if self.uplink else ()

    def resolver(self, *, has_own_network: bool) -> str:
        """The text of `/etc/resolv.conf` inside."""
        return network.resolver_configuration(self.uplink) if has_own_network else network.host_resolver_configuration()

    def last_words(self, sandbox_id: str) -> str:
        """The last line the sandbox's first process printed."""
        with contextlib.suppress(OSError):
            lines = self._log(sandbox_id).read_text(errors="replace").strip().splitlines()
            if lines:
                return lines[-1][:500]
        return ""

    def _log(self, sandbox_id: str) -> Path:
        return self.base(sandbox_id) / "daemon.log"

    def _environment(self, spec: SandboxSpec, home: str, config: ImageConfig | None = None) -> dict[str, str]:
        user = self.account(spec).name
        return {
            "PATH": PATH,
            "HOME": home,
            "USER": user,
            "LOGNAME": user,
            "SHELL": "/bin/bash" if Path("/bin/bash").exists() else "/bin/sh",
            "LANG": "C.UTF-8",
            **(config.env if config else {}),
            "DAYTONA_SANDBOX_ID": spec.sandbox_id,
            "DAYTONA_SANDBOX_SNAPSHOT": spec.snapshot or "",
            "DAYTONA_SANDBOX_USER": user,
            "DAYTONA_ORGANIZATION_ID": spec.organization_id,
            "DAYTONA_REGION_ID": spec.region,
            **spec.env,
        }


def _daemon_arguments(spec: SandboxSpec, config: ImageConfig) -> list[str]:
    arguments = ["--door-dir", DOOR_MOUNT]
    if config.work_dir:
        arguments += ["--work-dir", config.work_dir]
    program = spec.entrypoint or config.program
    return [*arguments, "--", *program] if program else arguments
