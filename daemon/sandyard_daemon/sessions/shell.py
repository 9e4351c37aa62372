"""A session's shell: commands go in as single lines, their exit codes come back, its death is noticed at once.

The shell reads a private stdin. Each command is a file it sources with the command's own pipes as stdin, stdout and
stderr; then it writes the status to a pipe of ours. All pipes are opened by the shell through `/proc/<daemon>/fd`, so
user code inherits none of them, no name of ours exists in the shell, and nothing it closes or overwrites cuts us off.
"""

import asyncio
import contextlib
import os
import shlex
from collections.abc import Callable

from sandyard_daemon.children import Children
from sandyard_daemon.environment import Environment
from sandyard_daemon.errors import Internal
from sandyard_daemon.sessions import supervisor
from sandyard_daemon.sessions.supervisor import Program, Supervisor

KILLED = 137


class Shell:
    """One shell process and its supervisor.

    `finished` is called with each command's status, `died` once with the shell's exit code.
    """

    def __init__(self, supervised: Supervisor, *, finished: Callable[[int], None], died: Callable[[int], None]) -> None:
        self._supervised = supervised
        self._finished = finished
        self._died = died
        self._alive = True
        self._stdin_open = True
        self._gone = asyncio.Event()
        self._received = b""
        self._reports = b""
        self._last_status = 0
        self._status, self._status_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._status, self._read_status)
        loop.add_reader(supervised.report, self._read_report)

    @classmethod
    def start(
        cls,
        environment: Environment,
        children: Children,
        *,
        directory: str,
        finished: Callable[[int], None],
        died: Callable[[int], None],
    ) -> "Shell":
        """Start one. Raises `Internal` when there is no shell or no process to be had."""
        path = environment.shell()
        variables = dict(environment.variables)
        # Sourced by our first line instead: bash would let it read its stdin, which is ours.
        start_file = variables.pop("BASH_ENV", None) if path.endswith("bash") else None
        program = Program((path,), variables, (directory, environment.home, "/"), environment.descriptor_limits)
        try:
            supervised = supervisor.start(program)
        except OSError as error:
            raise Internal(f"cannot start a shell: {error.strerror}") from error
        shell = cls(supervised, finished=finished, died=died)
        children.watch(supervised.pid, lambda _: shell._read_report())
        if start_file:
            quoted = shlex.quote(start_file)
            shell._write(f"export BASH_ENV={quoted}; . {quoted} </dev/null; :\n")
        return shell

    def run(self, script: str, *, stdin: str, stdout: str, stderr: str) -> None:
        """Source the file `script` with these paths as its streams. One at a time; `finished` or `died` follows."""
        # `&&:` keeps `set -e` and ERR traps out of restoring the last command's status.
        restore = f"(exit {self._last_status}) &&:\n" if self._last_status else ""
        status = f"/proc/{os.getpid()}/fd/{self._status}"
        self._write(
            f"{restore}. {shlex.quote(script)} <{stdin} >{stdout} 2>{stderr}\n"
            f"\\command printf '%d\\n' \"$?\" >{status} || exit\n"
        )

    async def end(self) -> None:
        """End the shell and everything it ever started; return when it is gone. Bounded by the supervisor."""
        if not self._gone.is_set():
            self._close_stdin()  # an idle shell ends by itself, whatever it traps
            with contextlib.suppress(OSError):
                os.write(self._supervised.control, b"k")
            await self._gone.wait()

    def _write(self, line: str) -> None:
        # The pipe holds one command at a time and is empty now; EPIPE means the shell died, which `died` tells.
        with contextlib.suppress(BrokenPipeError):
            os.write(self._supervised.stdin, line.encode("utf-8", "surrogateescape"))

    def _read_status(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._received += os.read(self._status, 4096)
        *lines, self._received = self._received.split(b"\n")
        for line in lines:
            self._last_status = int(line) if line.isdigit() else 1
            self._finished(self._last_status)

    def _read_report(self) -> None:
        if self._gone.is_set():
            return
        try:
            data = os.read(self._supervised.report, 4096)
        except BlockingIOError:
            return
        self._reports += data
        *lines, self._reports = self._reports.split(b"\n")
        for line in lines:
            self._notice_death(line)
        if not data:
            self._notice_death(b"")
            self._close()

    def _notice_death(self, line: bytes) -> None:
        if not self._alive:
            return
        word, _, rest = line.partition(b" ")
        self._read_status()  # it may have reported its last command just before
        self._alive = False
        self._died(int(rest.split()[0]) if word == b"exit" else KILLED)

    def _close(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._status)
        loop.remove_reader(self._supervised.report)
        ours = (self._status, self._status_writer)
        for descriptor in (*ours, self._supervised.control, self._supervised.report):
            os.close(descriptor)
        self._close_stdin()
        self._gone.set()

    def _close_stdin(self) -> None:
        if self._stdin_open:
            self._stdin_open = False
            os.close(self._supervised.stdin)
