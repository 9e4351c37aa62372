"""The folders that sandboxes share: those of volumes, which are ours, and those of the host that the setting allows.

    <directory>/<volume id>/    readable and writable by whoever a sandbox's user is

What is in a volume is written by user code, links included. So nothing below its root is opened by path: each step goes
from descriptor to descriptor and refuses links. `Place` keeps the steps apart for those who mount it later.
"""

import os
import secrets
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from sandyard.folders import SETTING, HostFolder, grant
from sandyard_api.jobs.wire import Mount
from sandyard_runner.errors import RuntimeFailure

DISCARDED = ".discarded-"
"""Prefix of folders that are no volume's any more."""
REMOVAL_SECONDS = 120
OPEN_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Identity = tuple[str, str]
"""Device, and path below the root of its file system: the same in every mount namespace. *Source:* proc(5)."""


class Place(msgspec.Struct, frozen=True):
    """A folder to be mounted, which exists."""

    target: str
    """Where the sandbox sees it."""
    root: str
    """Path of a folder whose way no sandbox can change."""
    parts: tuple[str, ...]
    """The way from there, which sandboxes may change at any time."""
    read_only: bool
    identity: Identity | None
    """What it is; `None` on a machine without /proc."""

    @property
    def path(self) -> str:
        """Where it was when it was looked at."""
        return os.path.join(self.root, *self.parts)


class Volumes:
    """Methods block; they touch the disk only."""

    def __init__(self, directory: Path, host_folders: Sequence[HostFolder] = ()) -> None:
        self._directory = directory
        self._host_folders = host_folders

    def places(self, mounts: Sequence[Mount]) -> list[Place]:
        """Make what is missing of each mount's folder. Raises `RuntimeFailure`."""
        return [self._place(mount) for mount in mounts]

    def names(self) -> list[str]:
        """Ids of the volumes that have a folder."""
        if not self._directory.is_dir():
            return []
        return sorted(path.name for path in self._directory.iterdir() if not path.name.startswith("."))

    def remove(self, volume_id: str) -> bool:
        """Remove a volume's folder; whether nothing of it is left, which takes somebody with more rights then."""
        path = self._directory / volume_id
        if path.exists():
            path.rename(self._directory / f"{DISCARDED}{secrets.token_hex(8)}")
        return self.sweep()

    def sweep(self) -> bool:
        """Remove what was discarded and is still there; whether nothing is left."""
        for path in self._leftovers():
            _remove_tree(path)
        return not self._leftovers()

    def _leftovers(self) -> list[Path]:
        return list(self._directory.glob(f"{DISCARDED}*"))

    def _place(self, mount: Mount) -> Place:
        steps = tuple(part for part in mount.subpath.split("/") if part not in ("", "."))
        if mount.host_folder is not None:
            granted = grant(self._host_folders, mount.host_folder)
            if granted is None:
                raise RuntimeFailure(
                    f"the host folder {mount.host_folder} cannot be mounted: it is in no folder that {SETTING} allows"
                )
            name, steps = f"the host folder {mount.host_folder}", (*granted.parts, *steps)
            return _look(mount, granted.root, steps, name=name, read_only=granted.read_only, make=False)
        return _look(mount, self._root(mount.volume_id or ""), steps, name="the volume", read_only=False, make=True)

    def _root(self, volume_id: str) -> str:
        path = self._directory / volume_id
        if path.parent != self._directory or volume_id.startswith("."):
            raise RuntimeFailure(f"{volume_id!r} is not the id of a volume")
        # Keeps the users of this machine away; the folders below are open to any user of a sandbox.
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            path.mkdir(exist_ok=True)
            path.chmod(0o777)
        return os.path.realpath(path)


def _look(mount: Mount, root: str, steps: tuple[str, ...], *, name: str, read_only: bool, make: bool) -> Place:
    if ".." in steps:
        raise RuntimeFailure(f"{mount.subpath} leads out of {name}")
    try:
        descriptor = _open_below(root, steps, make=make)
    except NotADirectoryError as error:
        raise RuntimeFailure(
            f"{mount.subpath or name} cannot be mounted: a part of it is a link or a file, and neither is followed"
        ) from error
    except OSError as error:
        raise RuntimeFailure(f"{mount.subpath or name} of {name} cannot be mounted: {error.strerror}") from error
    try:
        return Place(mount.path, root, steps, read_only, identity_of(descriptor))
    finally:
        os.close(descriptor)


def _open_below(root: str, steps: Sequence[str], *, make: bool) -> int:
    """A descriptor of the folder, reached without following links. Raises `OSError`."""
    descriptor = os.open(root, OPEN_FLAGS)
    for step in steps:
        above = descriptor
        try:
            descriptor = _step(above, step, make=make)
        finally:
            os.close(above)
    return descriptor


def _step(above: int, name: str, *, make: bool) -> int:
    try:
        return os.open(name, OPEN_FLAGS, dir_fd=above)
    except FileNotFoundError:
        if not make:
            raise
    with suppress(FileExistsError):  # another sandbox that starts now was first
        os.mkdir(name, dir_fd=above)
        made = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
        try:
            os.fchmod(made, 0o777)
        finally:
            os.close(made)
    return os.open(name, OPEN_FLAGS, dir_fd=above)


def identity_of(descriptor: int) -> Identity | None:
    """What the folder behind a descriptor is called in every mount namespace."""
    try:
        facts = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii")
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    number = next(line.split()[1] for line in facts.splitlines() if line.startswith("mnt_id:"))
    for line in mounts.splitlines():
        fields = line.split(" ")
        if fields[0] == number:
            root, point = plain(fields[3]), plain(fields[4])
            return fields[2], os.path.normpath(os.path.join(root, os.path.relpath(path, point)))
    return None


def plain(field: str) -> str:
    """A path of mountinfo without the escapes that it has for blanks and backslashes."""
    for escape, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(escape, character)
    return field


def _remove_tree(path: Path) -> None:
    """Whatever is in it: links are not followed, and folders that were closed are opened."""
    for command in (["rm", "-rf"], ["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
        if not os.path.lexists(path):
            return
        with suppress(subprocess.TimeoutExpired):  # the next comparison goes on with it
            subprocess.run([*command, "--", str(path)], capture_output=True, timeout=REMOVAL_SECONDS, check=False)  # noqa: S603
