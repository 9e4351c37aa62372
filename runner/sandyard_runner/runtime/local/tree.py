"""The files of one local sandbox: a root of its own, with overlays over the host's programs and configuration.

    <data_dir>/sandboxes/<id>/
        files/      the sandbox's root: /home, /root, /var, /tmp ... live here
        upper/      what it changed of the host's /usr, /etc, /opt
        work/       the overlays' scratch
        spec.json   which user it runs as
        laid-out    once the directories were made
        run.json    the processes of its present run

Only what is listed here is shown of the host; everything else (homes, /run, /var, other mounts) does not exist inside.
"""

import contextlib
import os
import shutil
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
READABLE_ALWAYS = ("sudoers", "sudoers.d")


@dataclass(frozen=True, slots=True)
class Account:
    """Who runs inside."""

    name: str
    uid: int
    gid: int
    home: str
    groups: tuple[int, ...] = ()


class UnknownUser(ValueError):
    """Nobody of that name exists inside."""


def find_account(user: str | None, passwd: str) -> Account:
    """The account that `user` (a name or number; `None` is the default) names inside. Raises `UnknownUser`."""
    if user is None or user == USER:
        return Account(USER, USER_ID, USER_ID, f"/home/{USER}", (USER_ID,))
    for line in passwd.splitlines():
        name, _, uid, gid, _, home, _ = (line.split(":") + [""] * 7)[:7]
        if user in (name, uid):
            return Account(name, int(uid), int(gid), home or "/", (int(gid),))
    raise UnknownUser(f"unable to find user {user}: no matching entries in passwd file")


@dataclass(frozen=True, slots=True)
class Tree:
    """The directories of one sandbox."""

    base: Path

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

    def write_names(self, hostname: str, resolver: str) -> None:
        """What is written anew at each start: the host's name and the name servers."""
        etc = self.upper("/etc")
        _replace(etc / "hostname", f"{hostname}\n")
        _replace(etc / "hosts", f"127.0.0.1\tlocalhost\n::1\tlocalhost\n127.0.1.1\t{hostname}\n")
        _replace(etc / "resolv.conf", resolver)

    def _write_accounts(self, hidden: Sequence[str], *, as_root: bool) -> None:
        etc = self.upper("/etc")
        _replace(etc / "passwd", sandbox_passwd())
        _replace(etc / "group", _sandbox_group())
        _replace(etc / "shadow", f"root:*:19000:0:99999:7:::\n{USER}:*:19000:0:99999:7:::\n", 0o600)
        _replace(etc / "gshadow", "", 0o600)
        if as_root:
            for path in hidden:
                _white_out(etc, path)
            if Path("/etc/sudoers.d").is_dir():
                _like_host(etc, "sudoers.d")
                _replace(etc / "sudoers.d" / "sandbox", f"{USER} ALL=(ALL) NOPASSWD:ALL\n", 0o440)

    def mounts(self, *, door: Path, bundle: Path, groups: Sequence[tuple[str, str]]) -> list[dict[str, object]]:
        """The mounts in order, as `enter.py` reads them. `groups` are control groups and where they are shown."""
        unprivileged = ",userxattr" if os.geteuid() != 0 else ""
        planned: list[dict[str, object]] = []
        for target in self.overlaid():
            layers = f"lowerdir={target},upperdir={self.upper(target)},workdir={self.work(target)}{unprivileged}"
            planned.append({"kind": "overlay", "target": target, "options": layers})
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
            {"kind": "bind", "source": str(door), "target": "/run/sandyard"},
            {"kind": "bind", "source": str(bundle), "target": "/opt/sandyard", "readonly": True},
        ]
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


def hidden_paths() -> list[str]:
    """What below /etc others than root cannot read: keys, password hashes, credentials. Relative to /etc."""
    hidden: list[str] = []
    for directory, names, files in os.walk("/etc"):
        relative = os.path.relpath(directory, "/etc")
        for name in [*names, *files]:
            path = os.path.normpath(os.path.join(relative, name))
            with contextlib.suppress(OSError):
                status = os.lstat(os.path.join("/etc", path))
                wanted = 0o5 if stat.S_ISDIR(status.st_mode) else 0o4
                if not stat.S_ISLNK(status.st_mode) and status.st_mode & wanted != wanted:
                    hidden.append(path)
        names[:] = [name for name in names if os.path.normpath(os.path.join(relative, name)) not in hidden]
    kept = {*READABLE_ALWAYS, "shadow", "gshadow"}
    return [path for path in hidden if path.split("/")[0] not in kept]


def sandbox_passwd() -> str:
    """The host's accounts without its people, and with the sandbox's user."""
    lines = [line for line in _system_lines("/etc/passwd") if not line.startswith(f"{USER}:")]
    shell = "/bin/bash" if Path("/bin/bash").exists() else "/bin/sh"
    lines.append(f"{USER}:x:{USER_ID}:{USER_ID}::/home/{USER}:{shell}")
    return "\n".join(lines) + "\n"


def _sandbox_group() -> str:
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
