"""What Linux offers and the standard library does not name."""

import ctypes
import errno
import os
import resource
import termios
from fcntl import F_GETPIPE_SZ, F_SETPIPE_SZ, fcntl, ioctl

PIPE_BYTES = 1 << 20
"""What an ordinary user may ask for (`/proc/sys/fs/pipe-max-size`)."""

_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)
_prctl = _libc.prctl
_prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1


def become_subreaper() -> None:
    """From now on orphaned descendants of this process become its children. Raises `OSError`."""
    if _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        # Emulators of another architecture may not know it (qemu-user 7): nothing would bury what users leave behind.
        raise OSError(error, f"prctl PR_SET_CHILD_SUBREAPER: {os.strerror(error)}")


def rename_to_nothing(source: str, destination: str) -> None:
    """Rename, unless `destination` exists: `FileExistsError`. Raises `OSError`.

    Where the file system or the C library cannot do that in one step, it is looked for just before.
    """
    names = (os.fsencode(source), os.fsencode(destination))
    rename = getattr(_libc, "renameat2", None)
    if rename is not None and rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_NOREPLACE) == 0:
        return
    code = ctypes.get_errno() if rename is not None else errno.ENOSYS
    if code not in (errno.EINVAL, errno.ENOSYS):
        raise OSError(code, os.strerror(code), source, None, destination)
    if os.path.lexists(destination):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), source, None, destination)
    os.rename(source, destination)


def give_back_memory() -> None:
    """Return what the C library keeps for later allocations to the kernel. *Source:* malloc_trim(3), where it is."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def large_pipe() -> tuple[int, int]:
    """A pipe's non-blocking read end and its write end, 1 MiB where the user's share of pipe memory allows it."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(reader, False)
    try:
        fcntl(writer, F_SETPIPE_SZ, PIPE_BYTES)
    except OSError:
        # The user's share is used up: the default size only costs speed.
        fcntl(writer, F_GETPIPE_SZ)
    return reader, writer


def bytes_waiting(reader: int) -> int:
    """How many bytes a read from this pipe would give now."""
    answer = ioctl(reader, termios.FIONREAD, b"\0\0\0\0")
    return int.from_bytes(answer, "little")


def raise_descriptor_limit() -> tuple[int, int]:
    """Allow ourselves as many descriptors as the hard limit grants; the former limits, for the processes we start."""
    former = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (former[1], former[1]))
    return former


def set_descriptor_limit(limits: tuple[int, int], pid: int = 0) -> None:
    """Give a process (ours: 0) its descriptor limits back."""
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


def exit_code(status: int) -> int:
    """A wait status as shells show it: 128 + n after signal n."""
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
