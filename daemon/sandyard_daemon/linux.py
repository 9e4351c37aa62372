"""What Linux offers and the standard library does not name."""

import ctypes
import os
import resource
import termios
from fcntl import F_GETPIPE_SZ, F_SETPIPE_SZ, fcntl, ioctl

PIPE_BYTES = 1 << 20
"""What an ordinary user may ask for (`/proc/sys/fs/pipe-max-size`)."""

_PR_SET_CHILD_SUBREAPER = 36
_prctl = ctypes.CDLL(None, use_errno=True).prctl
_prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]


def become_subreaper() -> None:
    """From now on orphaned descendants of this process become its children. Raises `OSError`."""
    if _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


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
