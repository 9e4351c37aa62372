"""The process between the daemon and a shell: it owns the whole tree the shell starts, and can end all of it.

Forked from the daemon, so it shares its memory. As child subreaper it inherits every descendant whose parent dies,
double-forked and `setsid` ones included. It ends the tree when told to, and when the daemon goes away.
"""

import contextlib
import os
import select
import signal
import termios
import time
from collections.abc import Mapping, Sequence
from fcntl import ioctl
from typing import NamedTuple, NoReturn

from sandyard_daemon.linux import become_subreaper, exit_code, set_descriptor_limit

GRACE_SECONDS = 2.0
"""Between SIGTERM and SIGKILL."""
KILL_SECONDS = 2.0
"""How long killed processes may take to be gone; what we may not kill (setuid programs) is left to the daemon."""

END = b"k"
"""On `control`: ask everything to end, then make it. Closing `control` says the same."""
KILL = b"K"
"""On `control`: end everything at once."""
HANG_UP = b"h"
"""On `control`: what a terminal that goes away says, and soon after that the end."""
SIGNAL = b"s"
"""On `control`, with the signal's number as second byte: for the program and its process group."""

_HANG_UP_SECONDS = 0.5
_ENDINGS = {
    KILL: ((signal.SIGKILL, KILL_SECONDS),),
    HANG_UP: ((signal.SIGHUP, _HANG_UP_SECONDS), (signal.SIGKILL, KILL_SECONDS)),
}
_USUAL_ENDING = ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, KILL_SECONDS))
_SWEEP_SECONDS = 0.03
_CONTROL, _REPORT, _STDIN, _STDERR = 3, 4, 5, 7
_DEFAULT_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


class Program(NamedTuple):
    """What the supervisor starts."""

    arguments: Sequence[str]
    variables: Mapping[str, str]
    directories: Sequence[str]
    """Where to start: the first of these that can be entered."""
    descriptor_limits: tuple[int, int]
    streams: tuple[int, int, int] | None = None
    """The daemon's descriptors that become its streams, in a login session of its own. `None`: a pipe for it to read,
    and nowhere for what it writes."""
    is_terminal: bool = False
    """Whether the streams are a terminal, which then controls it."""


class Supervisor(NamedTuple):
    """The daemon's ends. `control` takes orders. `report` gives `exit CODE SIGNAL` once the shell is dead (`failed
    REASON` before it when it could not be started) and ends when nothing of the tree is left."""

    pid: int
    control: int
    report: int
    stdin: int
    """Writes to the shell's standard input; -1 where the program has streams of its own."""


def start(program: Program) -> Supervisor:
    """Fork. Raises `OSError` when the process or its pipes cannot be had."""
    pipes: list[int] = []
    try:
        for _ in range(2 if program.streams else 3):
            pipes += os.pipe2(os.O_CLOEXEC)
        control_read, control, report, report_write, *stdin_pipe = pipes
        pid = os.fork()
    except OSError:
        for descriptor in pipes:
            os.close(descriptor)
        raise
    if pid == 0:
        _become(program, control_read, report_write, *(program.streams or stdin_pipe[:1]))
    for descriptor in (control_read, report_write, *stdin_pipe[:1]):
        os.close(descriptor)
    stdin = stdin_pipe[1] if stdin_pipe else -1
    for descriptor in (report, *stdin_pipe[1:]):
        os.set_blocking(descriptor, False)
    return Supervisor(pid, control, report, stdin)


def _become(program: Program, control: int, report: int, *streams: int) -> NoReturn:
    """Never return into the daemon's event loop, whatever happens."""
    status = 70
    try:
        _arrange_descriptors(control, report, *streams)
        signal.set_wakeup_fd(-1)
        for number in _DEFAULT_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.setsid()
        become_subreaper()
        _supervise(program)
        status = 0
    except OSError as error:
        with contextlib.suppress(OSError):
            os.write(_REPORT, f"failed {error.strerror}\n".encode())
    finally:
        os._exit(status)


def _arrange_descriptors(*wanted: int) -> None:
    """Keep these from 3 on and nothing else of the daemon's: a held pipe of another session would never end."""
    for place, descriptor in enumerate([_above(each) for each in wanted], _CONTROL):
        os.dup2(descriptor, place, inheritable=False)
    null = os.open(os.devnull, os.O_RDWR)
    for place in (0, 1, 2):
        os.dup2(null, place)
    for name in os.listdir("/proc/self/fd"):
        if int(name) >= _CONTROL + len(wanted):
            with contextlib.suppress(OSError):
                os.close(int(name))


def _above(descriptor: int) -> int:
    """A copy that is none of the places to be filled."""
    while descriptor <= _STDERR:
        descriptor = os.dup(descriptor)
    return descriptor


def _supervise(program: Program) -> None:
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, _ignore)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    shell = os.fork()
    if shell == 0:
        _become_shell(program)
    for place in range(_STDIN, _STDERR + 1 if program.streams else _STDIN + 1):
        os.close(place)
    waiting = select.poll()
    waiting.register(_CONTROL, select.POLLIN)
    waiting.register(woken, select.POLLIN)
    while _reap(shell):
        if any(descriptor == _CONTROL for descriptor, _ in waiting.poll()):
            order = os.read(_CONTROL, 2)
            if order[:1] != SIGNAL:
                _end_tree(shell, waiting, woken, _ENDINGS.get(order[:1], _USUAL_ENDING))
                return
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(shell, order[1])
        _empty(woken)


def _become_shell(program: Program) -> NoReturn:
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        _take_streams(program)
        for directory in program.directories:
            with contextlib.suppress(OSError):
                os.chdir(directory)
                break
        set_descriptor_limit(program.descriptor_limits)
        os.execve(program.arguments[0], list(program.arguments), dict(program.variables))  # noqa: S606  the user's shell
    except OSError as error:
        if program.streams:
            with contextlib.suppress(OSError):
                os.write(_REPORT, f"failed {error.strerror}\n".encode())
    finally:
        os._exit(127)


def _take_streams(program: Program) -> None:
    if not program.streams:
        os.setpgid(0, 0)
        os.dup2(_STDIN, 0)
        return
    os.setsid()
    for place in (0, 1, 2):
        os.dup2(_STDIN + place, place)
    if program.is_terminal:
        ioctl(0, termios.TIOCSCTTY, 0)


def _ignore(number: int, frame: object) -> None:
    """The wake-up descriptor does the work; a handler must exist for it to be written."""


def _reap(shell: int) -> bool:
    """Collect the dead; report the shell's end. False when no process is left."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True
        if pid == shell:
            with contextlib.suppress(OSError):
                os.write(_REPORT, f"exit {exit_code(status)} {status & 0x7F}\n".encode())


def _empty(woken: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.read(woken, 4096)


def _end_tree(shell: int, waiting: select.poll, woken: int, steps: Sequence[tuple[signal.Signals, float]]) -> None:
    """Send everything one signal after the other, giving it the seconds beside each to end."""
    waiting.unregister(_CONTROL)
    asked: set[int] = set()
    for number, seconds in steps:
        deadline = time.monotonic() + seconds
        while _reap(shell) and (left := deadline - time.monotonic()) > 0:
            _signal_all(number, asked)
            # A process forked during the sweep escaped it: look again soon, and at once when one died.
            waiting.poll(min(left, _SWEEP_SECONDS) * 1000)
            _empty(woken)


def _signal_all(number: signal.Signals, asked: set[int]) -> None:
    """Kill, or ask each once to end."""
    for pid in _descendants():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if number is signal.SIGKILL:
                os.kill(pid, number)
            elif pid not in asked:
                asked.add(pid)
                os.kill(pid, number)
                os.kill(pid, signal.SIGCONT)  # a stopped process meets SIGTERM only when it goes on


def _descendants() -> list[int]:
    """All processes below this one, by the parents the kernel tells."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (parent := _parent_of(name)) is not None:
            children.setdefault(parent, []).append(int(name))
    found: list[int] = []
    ahead = [os.getpid()]
    while ahead:
        below = children.get(ahead.pop(), [])
        found += below
        ahead += below
    return found


def _parent_of(pid: str) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The second field, a program's name in parentheses, may hold anything, parentheses too.
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return None
