"""One-shot commands and programs: no input, both streams on one pipe, so that their order is exact."""

import asyncio
import contextlib
import os
import signal
import subprocess
from typing import NamedTuple

from sandyard_daemon.children import Children
from sandyard_daemon.environment import Environment
from sandyard_daemon.linux import set_descriptor_limit
from sandyard_daemon.sessions.capture import Capture, reading
from sandyard_daemon.state import StateDirectory

MAX_OUTPUT = 32 << 20
"""Bytes kept of one command's output; the rest is counted."""
CANNOT_START = -1
"""Exit code of what could not be started; its output is the reason."""

_DRAIN_SECONDS = 0.1
"""What helpers of the shell, like process substitutions, may take to write their last after it exited."""
_MAX_ARGUMENT = 100_000
"""Bytes; Linux takes 128 KiB in one argument."""


class Program(NamedTuple):
    """What to run."""

    arguments: list[str]
    """Words as they are: no shell reads them."""
    cwd: str | None
    """`None`: the work directory."""
    envs: dict[str, str]
    """Beside the sandbox's own."""
    stdin: int = subprocess.DEVNULL
    descriptors: tuple[int, ...] = ()
    """Inherited under their numbers."""


class Outcome(NamedTuple):
    """How it ended."""

    exit_code: int
    output: bytes | bytearray
    dropped: int = 0
    timed_out: bool = False


class Executions:
    """Runs one-shot commands. What a command leaves in the background goes on, its output read and dropped."""

    def __init__(self, environment: Environment, children: Children, state: StateDirectory) -> None:
        self._environment = environment
        self._children = children
        self._state = state
        self._running: set[int] = set()
        self._captures: set[Capture] = set()

    async def run(self, command: str, *, cwd: str | None, envs: dict[str, str], timeout: float | None) -> Outcome:
        """Run it to its shell's end; `timeout` in seconds. Cancelling kills its process group. Raises `Internal`."""
        arguments, script = self._arguments(command)
        try:
            return await self.run_program(Program(arguments, cwd, envs), timeout)
        finally:
            if script is not None:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(script)

    async def run_program(self, program: Program, timeout: float | None) -> Outcome:
        """Run it to its end; `timeout` in seconds. Cancelling kills its process group."""
        output = _Output()
        capture = Capture(reading(output.keep), lambda: self._ended(capture, output))
        self._captures.add(capture)
        try:
            process = self._start(program, capture)
        except (OSError, ValueError) as error:
            self._ended(capture, output)
            return Outcome(CANNOT_START, str(error).encode("utf-8", "surrogateescape"))
        finally:
            capture.release()
        try:
            return await self._wait(process, output, capture, timeout)
        finally:
            output.discard()

    def close(self) -> None:
        """Kill what still runs."""
        for pid in self._running:
            _kill_group(pid)
        for capture in list(self._captures):
            capture.close()

    def _arguments(self, command: str) -> tuple[list[str], str | None]:
        """The shell's arguments, and the script to remove afterwards when the text is too long for one of them."""
        shell = self._environment.shell()
        text = command.encode("utf-8", "surrogateescape")
        if len(text) < _MAX_ARGUMENT:
            return [shell, "-c", command], None
        script = self._state.next_name() + ".sh"
        with open(os.open(script, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(text)
        return [shell, script], script

    def _start(self, program: Program, capture: Capture) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(  # noqa: S603  running the user's command is the purpose
            program.arguments,
            stdin=program.stdin,
            stdout=capture.writer,
            stderr=capture.writer,
            cwd=self._environment.resolve(program.cwd),
            env={**self._environment.variables, **program.envs},
            process_group=0,
            pass_fds=program.descriptors,
        )
        with contextlib.suppress(ProcessLookupError, PermissionError):
            set_descriptor_limit(self._environment.descriptor_limits, process.pid)
        return process

    async def _wait(
        self, process: "subprocess.Popen[bytes]", output: "_Output", capture: Capture, timeout: float | None
    ) -> Outcome:
        exited = self._children.exit_of(process.pid)
        self._running.add(process.pid)
        timed_out = False
        try:
            try:
                async with asyncio.timeout(timeout):
                    await asyncio.shield(exited)
            except TimeoutError:
                timed_out = True
                _kill_group(process.pid)
                await exited
            except asyncio.CancelledError:
                _kill_group(process.pid)
                raise
            if capture.is_open:
                capture.drain()
            if capture.is_open and not timed_out:
                await output.quiet(_DRAIN_SECONDS)
            return Outcome(exited.result(), bytes(output.kept), output.dropped, timed_out)
        finally:
            self._running.discard(process.pid)
            process.returncode = 0  # `Children` waits for it; Popen must not try

    def _ended(self, capture: Capture, output: "_Output") -> None:
        capture.close()
        self._captures.discard(capture)
        output.end()


class _Output:
    """What is kept of one command's output."""

    def __init__(self) -> None:
        self.kept = bytearray()
        self.dropped = 0
        self._discarding = False
        self._closed = asyncio.Event()

    def keep(self, data: memoryview) -> None:
        if self._discarding:
            return
        room = MAX_OUTPUT - len(self.kept)
        self.kept += data[:room]
        self.dropped += max(0, len(data) - room)

    def end(self) -> None:
        self._closed.set()

    def discard(self) -> None:
        """The answer is made: what background processes write from now on is only read so that they can go on."""
        self._discarding = True
        self.kept = bytearray()

    async def quiet(self, seconds: float) -> None:
        """Return when the pipe ended, or after `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closed.wait()


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
