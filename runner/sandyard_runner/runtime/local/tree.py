"""The files of one local sandbox: a root of its own, with overlays over the host's programs and configuration.

    <data_dir>/sandboxes/<id>/
        files/      the sandbox's root: /home, /root, /var, /tmp ... live here
        upper/      what it changed of the host's /usr, /etc, /opt
        work/       the overlays' scratch
        spec.json   which user it runs as
        laid-out    once the directories were made
        run.json    the processes of its present run
        footing.json    what it stands on, where that is not the host alone (see `layers`)

Only what is listed here is shown of the host; everything else (homes, /run, /var, other mounts) does not exist inside.
"""

import contextlib
import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

import msgspec

USER = "daytona"
USER_ID = 1000
HOST_USERS_FROM = 1000
"""The host's ordinary users begin here (login.defs(5)); they are not shown inside, but for `nobody`."""

OVERLAID = ("/usr", "/etc", "/opt")
OVERLAID_AS_ROOT = ("/var/lib/dpkg", "/var/lib/apt", "/var/cache/apt")
ROOT_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
DIRECTORIES = (
    "dev proc sys run usr etc opt home root srv mnt media var var/lib var/log var/cache var/spool var/local var/opt"
).split()
SHARED_DIRECTORIES = ("tmp", "var/tmp")
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
LAID_OUT = "laid-out"
MAX_ID = 65536
"""As many as are mapped into a sandbox."""
MAX_ACCOUNTS = 1 << 20
READABLE_ALWAYS = ("sudoers", "sudoers.d")


class Account(msgspec.Struct, frozen=True):
    """Who runs inside."""

    name: str
    uid: int
    gid: int
    home: str
    groups: tuple[int, ...] = ()


class UnknownUser(ValueError):
    """Nobody of that name exists inside."""


def find_account(user: str | None, passwd: str, groups: str = "") -> Account:
    """The account that `user` names inside: a name or number, `:` and a group behind it where wanted.

    `None` is the default one. Raises `UnknownUser`.
    """
    if user is None or user == USER:
        return Account(USER, USER_ID, USER_ID, f"/home/{USER}", (USER_ID,))
    wanted, has_group, group = user.partition(":")
    found = _find_user(wanted, passwd)
    if not has_group:
        return found
    gid = _find_group(group, groups)
    return Account(found.name, found.uid, gid, found.home, (gid,))


def _find_user(user: str, passwd: str) -> Account:
    for line in passwd.splitlines():
        name, _, uid, gid, _, home, _ = (line.split(":") + [""] * 7)[:7]
        if user in (name, uid) and uid.isdigit() and gid.isdigit():
            return Account(name, int(uid), int(gid), home or "/", (int(gid),))
    raise UnknownUser(f"unable to find user {user}: no matching entries in passwd file")


def _find_group(group: str, groups: str) -> int:
    for line in groups.splitlines():
        name, _, gid = (line.split(":") + [""] * 3)[:3]
        if group in (name, gid) and gid.isdigit():
            return int(gid)
    if group.isascii() and group.isdigit() and int(group) < MAX_ID:
        return int(group)
    raise UnknownUser(f"unable to find group {group}: no matching entries in group file")


class Tree(msgspec.Struct, frozen=True):
    """The directories of one sandbox, or of a layer that is being made."""

    base: Path
    layers: Sequence[Path] = ()
    """What it stands on above the host's directories, the uppermost first."""

    @property
    def files(self) -> Path:
        return self.base / "files"

    def upper(self, target: str) -> Path:
        return self.base / "upper" / target.strip("/").replace("/", "_")

    def work(self, target: str) -> Path:
        return self.base / "work" / target.strip("/").replace("/", "_")

    def overlaid(self) -> list[str]:
        """The host's directories that are shown, each under a writable layer."""
        wanted = [*OVERLAID, *(OVERLAID_AS_ROOT if os.geteuid() == 0 else ())]
        wanted += [f"/{name}" for name in ROOT_LINKS if not Path(f"/{name}").is_symlink()]
        return [path for path in wanted if Path(path).is_dir()]

    def make(self, hidden: Sequence[str]) -> None:
        """Lay out everything, once. `hidden` are the paths below /etc that must not be shown.

        A second time nothing is touched: what is there by then may be links that the sandbox made.
        """
        if (self.base / LAID_OUT).exists():
            return
        if self.layers:
            self._make_above_layers()
            return
        as_root = os.geteuid() == 0
        for name in DIRECTORIES:
            _directory(self.files / name, 0o755)
        for name in SHARED_DIRECTORIES:
            _directory(self.files / name, 0o1777)
        for name in ROOT_LINKS:
            if Path(f"/{name}").is_symlink() and not os.path.lexists(self.files / name):
                (self.files / name).symlink_to(os.readlink(f"/{name}"))
        for target in self.overlaid():
            _directory(self.upper(target), stat.S_IMODE(Path(target).stat().st_mode))
            _directory(self.work(target), 0o700)
        home = self.files / "home" / USER
        _directory(home, 0o755)
        (self.files / "root").chmod(0o700)
        if as_root:
            os.chown(home, USER_ID, USER_ID)
        self._write_accounts(hidden, as_root=as_root)
        (self.base / LAID_OUT).touch()

    def _make_above_layers(self) -> None:
        """Only what the overlays need: all the rest is in the layers."""
        _directory(self.files, 0o755)
        _directory(self.work("/"), 0o700)
        for target in self.overlaid():
            _directory(self.upper(target), stat.S_IMODE(Path(target).stat().st_mode))
            _directory(self.work(target), 0o700)
        (self.base / LAID_OUT).touch()

    def hide(self, paths: Sequence[str]) -> None:
        """Hide paths below /etc of the host, but for those that a layer brings itself."""
        etc = self.upper("/etc")
        for path in paths:
            if not any(os.path.lexists(layer / "upper" / "etc" / path) for layer in self.layers):
                _white_out(etc, path)

    def shows_directory(self, path: str) -> bool:
        """Whether the sandbox has such a folder among its own files, as seen from outside."""
        for folder in (self.files, *(layer / "files" for layer in self.layers)):
            if os.path.lexists(folder / path.lstrip("/")):
                return (folder / path.lstrip("/")).is_dir()
        return False

    def accounts(self, name: str) -> str | None:
        """The text of `passwd` or `group` as steps of a build left it; `None` where there were none."""
        for layer in (self.base, *self.layers):
            with contextlib.suppress(OSError):
                descriptor = os.open(layer / "upper" / "etc" / name, os.O_RDONLY | os.O_NOFOLLOW)
                with os.fdopen(descriptor, encoding="utf-8", errors="surrogateescape") as file:
                    return file.read(MAX_ACCOUNTS)
        return None

    def root_overlay(self) -> dict[str, str] | None:
        """How the root is put together, as `enter.py` reads it; `None` where `files` is the root itself."""
        if not self.layers:
            return None
        below = self._below("files")
        return {"directory": str(self.layers[0].parent), "options": self._overlay(below, self.files, self.work("/"))}

    def _below(self, part: str) -> list[str]:
        """The layers that have that part, relative to the directory of layers: mount options have no room for more."""
        return [f"{layer.name}/{part}" for layer in self.layers if (layer / part).is_dir()]

    def _overlay(self, below: Sequence[str], upper: Path, work: Path) -> str:
        unprivileged = ",userxattr" if os.geteuid() != 0 else ""
        return f"lowerdir={':'.join(below)},upperdir={upper},workdir={work}{unprivileged}"

    def write_names(self, hostname: str, resolver: str) -> None:
        """What is written anew at each start: the host's name and the name servers."""
        etc = self.upper("/etc")
        _replace(etc / "hostname", f"{hostname}\n")
        _replace(etc / "hosts", f"127.0.0.1\tlocalhost\n::1\tlocalhost\n127.0.1.1\t{hostname}\n")
        _replace(etc / "resolv.conf", resolver)

    def _write_accounts(self, hidden: Sequence[str], *, as_root: bool) -> None:
        etc = self.upper("/etc")
        _replace(etc / "passwd", sandbox_passwd())
        _replace(etc / "group", sandbox_group())
        _replace(etc / "shadow", f"root:*:19000:0:99999:7:::\n{USER}:*:19000:0:99999:7:::\n", 0o600)
        _replace(etc / "gshadow", "", 0o600)
        if as_root:
            for path in hidden:
                _white_out(etc, path)
            if Path("/etc/sudoers.d").is_dir():
                _like_host(etc, "sudoers.d")
                _replace(etc / "sudoers.d" / "sandbox", f"{USER} ALL=(ALL) NOPASSWD:ALL\n", 0o440)

    def mounts(
        self, *, door: Path | None, bundle: Path, groups: Sequence[tuple[str, str]] = ()
    ) -> list[dict[str, object]]:
        """The mounts in order, as `enter.py` reads them; without a door for a step of a build.

        `groups` are control groups and where they are shown.
        """
        planned: list[dict[str, object]] = []
        for target in self.overlaid():
            below = [*self._below(f"upper/{self.upper(target).name}"), target]
            options = self._overlay(below, self.upper(target), self.work(target))
            planned.append({"kind": "overlay", "target": target, "options": options})
        planned.append({"kind": "proc", "target": "/proc"})
        planned.append({"kind": "tmpfs", "target": "/dev", "options": "mode=755,size=64k"})
        planned += [{"kind": "bind", "source": f"/dev/{name}", "target": f"/dev/{name}"} for name in DEVICES]
        planned += [
            {"kind": "devpts", "target": "/dev/pts", "options": "newinstance,ptmxmode=0666,mode=0620"},
            {"kind": "link", "source": "pts/ptmx", "target": "/dev/ptmx"},
            {"kind": "link", "source": "/proc/self/fd", "target": "/dev/fd"},
            {"kind": "link", "source": "/proc/self/fd/0", "target": "/dev/stdin"},
            {"kind": "link", "source": "/proc/self/fd/1", "target": "/dev/stdout"},
            {"kind": "link", "source": "/proc/self/fd/2", "target": "/dev/stderr"},
            {"kind": "tmpfs", "target": "/dev/shm", "options": "mode=1777"},  # noqa: S108  a mount point
            {"kind": "tmpfs", "target": "/run", "options": "mode=755"},
            {"kind": "directory", "target": "/run/lock", "mode": 0o1777},
            {"kind": "bind", "source": str(bundle), "target": "/opt/sandyard", "readonly": True},
        ]
        if door is not None:
            planned.append({"kind": "bind", "source": str(door), "target": "/run/sandyard"})
        if groups:
            planned.append({"kind": "tmpfs", "target": "/sys", "options": "mode=755,size=64k"})
            # To be read only, by root too: who could write here would set the limits.
            planned += [
                {"kind": "bind", "source": source, "target": target, "readonly": True} for source, target in groups
            ]
        if Path("/nix/store").is_dir():
            planned.append({"kind": "bind", "source": "/nix/store", "target": "/nix/store", "readonly": True})
        return planned

    def remove(self) -> None:
        """Remove everything; gone already is success. Raises `OSError`."""
        remove_tree(self.base)


def remove_tree(path: Path) -> None:
    """Remove a directory with whatever an overlay left in it. Raises `OSError`, also where it is not there."""
    shutil.rmtree(path, onerror=_make_removable)


def hidden_paths(root: str = "/etc") -> list[str]:
    """What below `root` others than root cannot read: keys, password hashes, credentials. Relative to it."""
    hidden: list[str] = []
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        for entry in _entries(f"{root}/{inside}"):
            path = f"{inside}{entry.name}"
            with contextlib.suppress(OSError):
                mode = entry.stat(follow_symlinks=False).st_mode
                wanted = 0o5 if stat.S_ISDIR(mode) else 0o4
                if mode & wanted != wanted and not stat.S_ISLNK(mode):
                    hidden.append(path)
                elif stat.S_ISDIR(mode):
                    waiting.append(f"{path}/")
    kept = {*READABLE_ALWAYS, "shadow", "gshadow"}
    return sorted(path for path in hidden if path.split("/")[0] not in kept)


def _entries(directory: str) -> "list[os.DirEntry[str]]":
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except OSError:  # gone meanwhile
        return []


def sandbox_passwd() -> str:
    """The host's accounts without its people, and with the sandbox's user."""
    lines = [line for line in _system_lines("/etc/passwd") if not line.startswith(f"{USER}:")]
    shell = "/bin/bash" if Path("/bin/bash").exists() else "/bin/sh"
    lines.append(f"{USER}:x:{USER_ID}:{USER_ID}::/home/{USER}:{shell}")
    return "\n".join(lines) + "\n"


def sandbox_group() -> str:
    """The host's groups without members, and the one of the sandbox's user."""
    lines = []
    for line in _system_lines("/etc/group"):
        if not line.startswith(f"{USER}:"):
            lines.append(line.rpartition(":")[0] + ":")  # without members: they are people of the host
    lines.append(f"{USER}:x:{USER_ID}:")
    return "\n".join(lines) + "\n"


def _system_lines(path: str) -> list[str]:
    kept = []
    for line in Path(path).read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        fields = line.split(":")
        if len(fields) > 2 and fields[2].isdigit() and not HOST_USERS_FROM <= int(fields[2]) < 65534:
            kept.append(line)
    return kept


def _directory(path: Path, mode: int) -> None:
    if not path.is_dir():
        path.mkdir(parents=True)
        path.chmod(mode)


def _replace(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file without following what the sandbox may have put there."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
        os.fchmod(file.fileno(), mode)


def _white_out(etc: Path, path: str) -> None:
    """Hide one path of the layer below. *Source:* kernel documentation, overlayfs, "whiteouts"."""
    parent = os.path.dirname(path)
    if parent:
        _like_host(etc, parent)
    with contextlib.suppress(FileExistsError):
        os.mknod(etc / path, stat.S_IFCHR, 0)


def _like_host(etc: Path, path: str) -> None:
    """Directories of the upper layer take over owner and mode, so they are made as the host's are."""
    made = Path()
    for part in Path(path).parts:
        made /= part
        if not (etc / made).is_dir():
            status = os.stat(Path("/etc") / made)
            (etc / made).mkdir()
            os.chown(etc / made, status.st_uid, status.st_gid)
            (etc / made).chmod(stat.S_IMODE(status.st_mode))


def _make_removable(function: object, path: str, error: object) -> None:
    """The overlay keeps a directory that even its owner may not enter."""
    if not os.path.lexists(path):
        return
    parent = os.path.dirname(path)
    os.chmod(parent, 0o700)
    if os.path.isdir(path) and not os.path.islink(path):
        os.chmod(path, 0o700)
        shutil.rmtree(path)
    else:
        os.unlink(path)
