"""Running git: a process group of its own, output read as it is wanted, an end at its deadline or with its client."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from sandyard_daemon.children import Children
from sandyard_daemon.environment import Environment
from sandyard_daemon.git.access import NO_ACCESS, Access, configuration, memory_file
from sandyard_daemon.git.errors import GitFailed, GitMissing, TookTooLong
from sandyard_daemon.linux import set_descriptor_limit
from sandyard_daemon.sessions.capture import Capture, reading

LOCAL_SECONDS = 300.0
"""What a command that talks to nobody may take."""
NETWORK_SECONDS = 3600.0
"""What a clone, pull or push may take; one that stands still ends after `STALL_SECONDS`."""
STALL_SECONDS = 120
MAX_OUTPUT = 4 << 20
"""Bytes of an answer that is not streamed."""

_GRACE_SECONDS = 2.0
"""Between SIGTERM, on which a clone removes what it made, and SIGKILL."""
_MAX_ERRORS = 64 << 10
_PIECE = 64 << 10
_USUAL_PLACES = "/usr/bin:/bin:/usr/local/bin"
# Git's own `rev-parse --local-env-vars` and what changes the meaning of paths: the request says which repository.
_NOT_PASSED_ON = frozenset(
    """GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_COMMON_DIR GIT_CONFIG GIT_DIR GIT_GLOB_PATHSPECS GIT_GRAFT_FILE
    GIT_ICASE_PATHSPECS GIT_IMPLICIT_WORK_TREE GIT_INDEX_FILE GIT_LITERAL_PATHSPECS GIT_NAMESPACE
    GIT_NOGLOB_PATHSPECS GIT_NO_REPLACE_OBJECTS GIT_OBJECT_DIRECTORY GIT_PREFIX GIT_REPLACE_REF_BASE GIT_SHALLOW_FILE
    GIT_WORK_TREE LANGUAGE SSH_ASKPASS""".split()
)
_FIXED = {
    "LC_ALL": "C",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",
    "SSH_ASKPASS_REQUIRE": "never",
    "GIT_HTTP_LOW_SPEED_LIMIT": "1",
    "GIT_HTTP_LOW_SPEED_TIME": str(STALL_SECONDS),
}
# No collection in the background: it would outlive the request that paid for it.
_SETTINGS = ("-c", "gc.auto=0", "-c", "maintenance.auto=false", "-c", "advice.detachedHead=false")


class Finished(NamedTuple):
    """A git command's end. `stderr` holds no secrets."""

    exit_code: int
    stdout: bytes
    stderr: str


@dataclass(frozen=True, slots=True)
class Command:
    """One git command."""

    arguments: tuple[str, ...]
    directory: str
    """Absolute; git itself enters it, so that a missing one is git's error."""
    stdin: bytes = b""
    access: Access = NO_ACCESS
    variables: Mapping[str, str] = field(default_factory=dict)
    seconds: float = LOCAL_SECONDS


class Git:
    """Starts git, and ends what is left of it when the daemon stops."""

    def __init__(self, environment: Environment, children: Children) -> None:
        self._environment = environment
        self._children = children
        self._running: set[int] = set()

    async def run(self, command: Command) -> Finished:
        """To its end, whatever its status. Raises `GitMissing`, `GitFailed`, `TookTooLong`."""
        output = bytearray()
        try:
            async with asyncio.timeout(command.seconds):
                with self.started(command) as running:
                    while piece := await running.read():
                        output += piece
                        if len(output) > MAX_OUTPUT:
                            raise GitFailed(f"git {command.arguments[0]} answered more than {MAX_OUTPUT} bytes")
                    return Finished(await running.exit_code(), bytes(output), running.errors())
        except TimeoutError as error:
            raise TookTooLong(f"git {command.arguments[0]} was killed after {command.seconds:g} seconds") from error

    @contextlib.contextmanager
    def started(self, command: Command) -> Iterator["Running"]:
        """A git that runs until it is done, at the longest until the block ends. Raises `GitMissing`, `GitFailed`."""
        errors = _Errors(command.access)
        capture = Capture(reading(errors.keep), lambda: None)
        reader, writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(reader, False)
        try:
            try:
                pid = self._start(command, writer, capture.writer)
            finally:
                os.close(writer)
                capture.release()
            try:
                yield Running(reader, self._watched(pid), capture, errors)
            finally:
                self._abandon(pid)
        finally:
            os.close(reader)
            capture.close()

    def close(self) -> None:
        """Kill what still runs."""
        for pid in self._running:
            _signal_group(pid, signal.SIGKILL)

    def _start(self, command: Command, stdout: int, stderr: int) -> int:
        program = self._program()
        with configuration(command.access) as (settings, descriptors), memory_file(command.stdin) as stdin:
            arguments = [program, *_SETTINGS, *settings, "-C", command.directory, *command.arguments]
            try:
                process = subprocess.Popen(  # noqa: S603  no shell; what clients send stands behind options and `--`
                    arguments,
                    stdin=stdin,
                    stdout=stdout,
                    stderr=stderr,
                    cwd="/",
                    env=self._variables(command),
                    pass_fds=descriptors,
                    start_new_session=True,  # without a terminal nothing can ask on one
                )
            except (OSError, ValueError) as error:
                raise GitFailed(f"git could not be started: {error}") from error
        with contextlib.suppress(ProcessLookupError, PermissionError):
            set_descriptor_limit(self._environment.descriptor_limits, process.pid)
        process.returncode = 0  # `Children` waits for it; Popen must not try
        return process.pid

    def _variables(self, command: Command) -> dict[str, str]:
        kept = {key: value for key, value in self._environment.variables.items() if key not in _NOT_PASSED_ON}
        return {**kept, **_FIXED, **command.variables}

    def _program(self) -> str:
        for place in (self._environment.variables.get("PATH") or _USUAL_PLACES).split(":"):
            candidate = os.path.join(place, "git")
            if place.startswith("/") and os.access(candidate, os.X_OK) and os.path.isfile(candidate):
                return candidate
        raise GitMissing("this sandbox has no git: install the package `git` in its image, version 2.25 or later")

    def _watched(self, pid: int) -> "asyncio.Future[int]":
        exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._running.add(pid)

        def ended(code: int) -> None:
            self._running.discard(pid)
            if not exited.done():
                exited.set_result(code)

        self._children.watch(pid, ended)
        return exited

    def _abandon(self, pid: int) -> None:
        """Nobody waits for it any more: ask it to end, then kill what is left."""
        if pid not in self._running:
            return
        _signal_group(pid, signal.SIGTERM)
        loop = asyncio.get_running_loop()
        loop.call_later(_GRACE_SECONDS, lambda: _signal_group(pid, signal.SIGKILL) if pid in self._running else None)


class Running:
    """A git that was started. One reader."""

    def __init__(self, reader: int, exited: "asyncio.Future[int]", capture: Capture, errors: "_Errors") -> None:
        self._reader = reader
        self._exited = exited
        self._capture = capture
        self._errors = errors

    async def read(self) -> bytes:
        """The next of its output; empty at the end. What background processes keep open is not waited for."""
        while True:
            has_ended = self._exited.done()
            try:
                return os.read(self._reader, _PIECE)
            except BlockingIOError:
                if has_ended:
                    return b""
            await self._changed()

    async def exit_code(self) -> int:
        """Its status, once it ended."""
        return await asyncio.shield(self._exited)

    def errors(self) -> str:
        """What it wrote to stderr until now, at least the end of it, without secrets."""
        self._capture.drain()
        return self._errors.text()

    async def _changed(self) -> None:
        """Return when there is something to read, or git ended."""
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()

        def wake(*_: object) -> None:
            if not woken.done():
                woken.set_result(None)

        loop.add_reader(self._reader, wake)
        self._exited.add_done_callback(wake)
        try:
            await woken
        finally:
            self._exited.remove_done_callback(wake)
            loop.remove_reader(self._reader)


class _Errors:
    """The end of what one command wrote to stderr."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._kept = bytearray()

    def keep(self, data: memoryview) -> None:
        self._kept += data
        if len(self._kept) > 2 * _MAX_ERRORS:
            del self._kept[:-_MAX_ERRORS]

    def text(self) -> str:
        return self._access.redact(self._kept.decode("utf-8", "replace"))


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
