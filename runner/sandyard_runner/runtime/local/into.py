"""Runs a program in a sandbox's user and network namespaces, with the power to change the network there.

For an ordinary user, run by path with `python3 -I -S` and a process id before the program: nsenter(1) loses the
capabilities of the user namespace when it starts a program as anybody but its root.
"""

import ctypes
import os
import sys

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
CAPABILITIES = (10, 12)
"""CAP_NET_BIND_SERVICE and CAP_NET_ADMIN."""
CAPABILITY_VERSION = 0x20080522
PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 47, 2

libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Join, keep the two capabilities over the start of the program, and become it. Raises `OSError`."""
    pid, *command = sys.argv[1:]
    kinds = ((CLONE_NEWUSER, "user"), (CLONE_NEWNET, "net"))
    places = [(kind, os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)) for kind, name in kinds]
    for kind, place in places:
        check(libc.setns(place, kind))
    keep_capabilities()
    os.execvp(command[0], command)  # noqa: S606


def keep_capabilities() -> None:
    """Make them inheritable and ambient. *Source:* capabilities(7), capset(2)."""
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    data = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable, twice
    check(libc.capget(header, data))
    data[2] |= sum(1 << capability for capability in CAPABILITIES)
    check(libc.capset(header, data))
    for capability in CAPABILITIES:
        check(libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0))


def check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    main()
