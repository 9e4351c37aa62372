"""The first program inside a sandbox's namespaces: mounts, network and user, then it becomes the daemon.

Run by path with `python3 -I -S` as PID 1 of the new namespaces, so it imports the standard library only. Its
arguments are descriptors: the plan is read from the first (`marshal`, made by `launch._plan`); to the second goes
`mounted` once the namespaces stand, and the reason when something fails. It closes when the daemon takes over.

Every sandbox waits for these imports, so the light forms are taken: json, socket and typing would double their time.
"""

from __future__ import annotations

import _socket
import ctypes
import fcntl
import marshal
import os
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC = 1, 2, 4, 8, 32, 4096, 16384
_FLAGS = {"overlay": MS_NODEV, "devpts": MS_NOSUID | MS_NOEXEC}
"""Where they are not the usual ones: programs keep their set-user-id bits, and terminals are devices."""
MNT_DETACH = 2
STAGE = "/run/.folders"
"""Where shared folders are mounted until the sandbox's own root is the root."""
CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG, SIGKILL = 1, 9
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
READ_ONLY = ("acpi", "asound", "bus", "fs", "irq", "scsi", "sys", "sysrq-trigger")
MASKED = ("kallsyms", "kcore", "keys", "kmsg", "latency_stats", "sched_debug", "timer_list", "timer_stats")

libc = ctypes.CDLL(None, use_errno=True)


class FolderError(Exception):
    """What the sandbox has at a mount path does not allow a mount; `launch` knows it by its name."""


def main() -> None:
    """Read the plan, enter, become the daemon; on any failure tell the reason and exit with 70."""
    status = int(sys.argv[2])
    os.set_inheritable(status, False)
    try:
        with os.fdopen(int(sys.argv[1]), "rb") as pipe:
            plan = marshal.loads(pipe.read())  # noqa: S302  written by our own process into a memory file
        enter(plan, status)
    except Exception as error:  # the one place that can still tell anybody
        reason = f"{type(error).__name__}: {error}".encode()
        os.write(status, reason)
        os.write(2, reason + b"\n")
        os._exit(70)


def enter(plan: dict[str, Any], status: int) -> None:
    """Do what the plan says and replace this process by its command. Raises `OSError`."""
    for procs in plan["cgroups"]:
        write(procs, "0")
    if plan["own_network"]:
        configure_network(plan["unreachable"])
    _socket.sethostname(plan["hostname"])
    mount_root(plan["root"], plan["root_overlay"])
    mount_tree(plan["root"], plan["mounts"])
    stage_folders(plan["root"] + STAGE, plan["folders"])
    change_root(plan["root"])
    place_folders(plan["folders"])
    os.write(status, b"mounted\n")
    if plan["gate"] is not None:
        wait_at(plan["gate"])
    if plan["mask_proc"]:
        mask_proc()
    become(plan)
    os.umask(0o022)
    os.chdir(plan["cwd"])
    if plan["die_with_parent"]:
        # Last, because changing user clears it.
        libc.prctl(PR_SET_PDEATHSIG, SIGKILL)
    command = plan["command"]
    os.execve(command[0], command, plan["env"])  # noqa: S606


def wait_at(gate: int) -> None:
    """Return when a byte comes; end where there is nobody any more who would send one."""
    if not os.read(gate, 1):
        os._exit(70)
    os.close(gate)


def mount_root(root: str, overlay: dict[str, str] | None) -> None:
    """Make `root` a mount: itself, or an overlay with itself as the writable layer."""
    if overlay is None:
        mount(root, root, None, MS_BIND)
        return
    os.chdir(overlay["directory"])  # from where the layers' names in the options count, here and in `mount_tree`
    mount("overlay", root, "overlay", MS_NODEV, overlay["options"])


def mount_tree(root: str, mounts: list[dict[str, Any]]) -> None:
    """Put the sandbox's root together below `root`, in the order given."""
    for item in mounts:
        target = root + item["target"]
        prepare(target, item)
        kind = item["kind"]
        if kind == "bind":
            bind(item["source"], target, readonly=item.get("readonly", False))
        elif kind == "link":
            os.symlink(item["source"], target)
        elif kind == "directory":
            os.chmod(target, item["mode"])
        else:
            flags = _FLAGS.get(kind, MS_NOSUID | MS_NODEV)
            mount(kind, target, kind, flags, item.get("options", ""))


def prepare(target: str, item: dict[str, Any]) -> None:
    """Make what will be mounted upon."""
    if item["kind"] == "link":
        return
    if item["kind"] == "bind" and not os.path.isdir(item["source"]):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
        return
    os.makedirs(target, exist_ok=True)


def bind(source: str, target: str, *, readonly: bool) -> None:
    mount(source, target, None, MS_BIND | MS_REC)
    if readonly:
        kept = os.statvfs(target).f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC)  # locked in a user namespace
        mount("none", target, None, MS_REMOUNT | MS_BIND | MS_RDONLY | kept)


def stage_folders(stage: str, folders: list[Any]) -> None:
    """Mount what is shared at a place that is ours alone, before the host's root is out of reach."""
    for number, (root, parts, _, readonly) in enumerate(folders):
        os.makedirs(f"{stage}/{number}", mode=0o700)
        descriptor = open_below(root, parts)
        # By descriptor: other sandboxes may put links in the way at any time.
        mount(f"/proc/self/fd/{descriptor}", f"{stage}/{number}", None, MS_BIND)
        os.close(descriptor)
        kept = os.statvfs(f"{stage}/{number}").f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC)
        flags = MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV | (MS_RDONLY if readonly else 0)
        mount("none", f"{stage}/{number}", None, flags | kept)


def open_below(root: str, parts: list[str]) -> int:
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
    descriptor = os.open(root, flags)
    for part in parts:
        above = descriptor
        descriptor = os.open(part, flags, dir_fd=above)
        os.close(above)
    return descriptor


def place_folders(folders: list[Any]) -> None:
    """Move what is shared to where the sandbox wants it. Links on the way are its own, and lead nowhere else."""
    for number, (_, _, target, _) in enumerate(folders):
        try:
            os.makedirs(target, exist_ok=True)
            mount(f"{STAGE}/{number}", target, None, MS_BIND)
        except OSError as error:
            raise FolderError(f"nothing can be mounted at {target}: {error.strerror}") from error
        check(libc.umount2(f"{STAGE}/{number}".encode(), MNT_DETACH), "umount of a staged folder")
        os.rmdir(f"{STAGE}/{number}")
    if folders:
        os.rmdir(STAGE)


def change_root(root: str) -> None:
    """Make `root` the root and let go of the old one. *Source:* pivot_root(2), "pivot_root(".", ".")"."""
    os.chdir(root)
    number = SYS_PIVOT_ROOT[os.uname().machine]
    check(libc.syscall(number, b".", b"."), "pivot_root")
    check(libc.umount2(b".", MNT_DETACH), "umount of the old root")
    os.chdir("/")


def mask_proc() -> None:
    """Make what the kernel protects by user id 0 alone, not by capability, unwritable for the sandbox's root."""
    for name in READ_ONLY:  # a write is refused; into what is masked it would seem to succeed
        path = f"/proc/{name}"
        if os.path.exists(path):
            bind(path, path, readonly=True)
    for name in MASKED:
        if os.path.exists(f"/proc/{name}"):
            mount("/dev/null", f"/proc/{name}", None, MS_BIND)


def become(plan: dict[str, Any]) -> None:
    """Give up the host's capabilities by entering a user namespace, then become the sandbox's user."""
    if plan["identity_user_namespace"]:
        enter_identity_namespace()
        os.setgroups(plan["groups"])
    if os.getgid() != plan["gid"]:
        os.setresgid(plan["gid"], plan["gid"], plan["gid"])
    if os.getuid() != plan["uid"]:
        os.setresuid(plan["uid"], plan["uid"], plan["uid"])
    check(libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "dropping capabilities")


def enter_identity_namespace() -> None:
    """A user namespace that maps every id to itself: the same files, but no capability over what was set up before.

    The map of more than one id can only be written from outside, so a child that stays outside writes it.
    """
    me = os.getpid()
    entered_read, entered_write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(entered_write)
            os.read(entered_read, 1)
            write(f"/proc/{me}/uid_map", "0 0 65536")
            write(f"/proc/{me}/gid_map", "0 0 65536")
        except OSError:
            os._exit(1)
        os._exit(0)
    os.close(entered_read)
    check(libc.unshare(CLONE_NEWUSER), "user namespace")
    os.close(entered_write)
    _, state = os.waitpid(child, 0)
    if state != 0:
        raise OSError("the user namespace's map could not be written")


def configure_network(unreachable: list[str]) -> None:
    """Bring loopback up, let ordinary users bind low ports and ping, and make the host's addresses unreachable."""
    control = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    request = struct.pack("16sH14x", b"lo", 0)
    flags = struct.unpack("16sH14x", fcntl.ioctl(control.fileno(), SIOCGIFFLAGS, request))[1]
    fcntl.ioctl(control.fileno(), SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | IFF_UP))
    control.close()
    for name, value in (("ip_unprivileged_port_start", "0"), ("ping_group_range", "0 65535")):
        try:
            write(f"/proc/sys/net/ipv4/{name}", value)
        except OSError:  # a comfort only; in a single-id namespace the kernel refuses unmapped groups
            continue
    netlink = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, 0)
    for network in unreachable:
        add_unreachable_route(netlink, network)
    netlink.close()


def add_unreachable_route(netlink: _socket.socket, network: str) -> None:
    """`ip route add unreachable NETWORK`. *Source:* rtnetlink(7)."""
    address, _, length = network.partition("/")
    # rtmsg: family, dst_len, src_len, tos, table main, protocol static, scope universe, type unreachable, flags
    body = struct.pack("BBBBBBBBI", _socket.AF_INET, int(length or 32), 0, 0, 254, 4, 0, 7, 0)
    body += struct.pack("HH", 8, 1) + _socket.inet_aton(address)  # RTA_DST
    # nlmsghdr: length, RTM_NEWROUTE, REQUEST | ACK | CREATE | REPLACE, sequence, port
    netlink.send(struct.pack("IHHII", 16 + len(body), 24, 0x0001 | 0x0004 | 0x0400 | 0x0100, 1, 0) + body)
    answer = netlink.recv(4096)
    error = struct.unpack_from("i", answer, 16)[0]
    if error:
        raise OSError(-error, f"route to {network}: {os.strerror(-error)}")


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    done = libc.mount(
        source.encode(), target.encode(), kind.encode() if kind else None, ctypes.c_ulong(flags), options.encode()
    )
    check(done, f"mount of {kind or source} on {target}")


def check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    main()
