"""One Python process that runs pieces of code, and what is heard of it."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from sandyard_daemon import guest
from sandyard_daemon.children import Children
from sandyard_daemon.environment import Environment
from sandyard_daemon.interpreter.errors import WorkerFailed
from sandyard_daemon.interpreter.pipes import Pipe, TextPipe, write_all
from sandyard_daemon.interpreter.tree import Tree
from sandyard_daemon.sessions.supervisor import Program

START_SECONDS = 30.0
GRACE_SECONDS = 2.0
"""Between asking code that ran too long to end, and killing it."""
MAX_REPLY = 2 << 20
"""Bytes of one reply; user code that writes more there by itself is killed."""

Heard = Callable[[str, str], None]
"""Takes a stream's name and a piece of text."""


class Reply(NamedTuple):
    """The code came to its end; `error` has `name`, `value`, `traceback` and `interrupted`."""

    error: dict[str, Any] | None


class Death(NamedTuple):
    """The process is gone."""

    exit_code: int

    def __str__(self) -> str:
        if self.exit_code == 128 + signal.SIGKILL:
            return "was killed (signal 9), perhaps because memory ran out"
        if self.exit_code > 128:
            return f"was killed by signal {self.exit_code - 128}"
        return f"ended with exit code {self.exit_code}"


class Worker:
    """A process; one piece of code at a time. Output is told as it comes, also between pieces of code."""

    def __init__(self, heard: Heard) -> None:
        self._outputs = [TextPipe(partial(heard, name)) for name in ("stdout", "stderr")]
        self._replies = Pipe(self._hear_reply)
        self._received = b""
        self._number = 0
        self._pid = 0
        self._tree: Tree | None = None
        self._ready = asyncio.Event()
        self._answer: asyncio.Future[Reply | Death] | None = None
        self.death: Death | None = None
        """Set once it is dead."""

    @classmethod
    async def start(cls, environment: Environment, children: Children, cwd: str, heard: Heard) -> "Worker":
        """A process that is ready. Raises `WorkerFailed`; cancelling ends it."""
        python = environment.find("python3") or environment.find("python")
        if python is None:
            raise WorkerFailed("this sandbox has no python3: install it, or use a snapshot that has it")
        worker = cls(heard)
        try:
            paths = [worker._replies.path, *(output.pipe.path for output in worker._outputs)]
            words = [python, "-c", guest.source("worker"), *paths]
            program = Program(words, dict(environment.variables), (cwd,), environment.descriptor_limits)
            worker._tree = Tree.start(program, children, worker._die)
            async with asyncio.timeout(START_SECONDS):
                await worker._ready.wait()
        except TimeoutError:
            await worker.end()
            raise WorkerFailed(f"python did not start within {START_SECONDS:g} seconds") from None
        except BaseException:
            await worker.end()
            raise
        if worker.death is not None:
            await worker.end()
            raise WorkerFailed(f"python {worker.death} while it started")
        return worker

    async def run(self, code: str, envs: dict[str, str], timeout: float | None) -> Reply | Death:
        """Run it to its end; `timeout` in seconds. Raises `TimeoutError`, and it still runs: `settle` then."""
        self._number += 1
        self._answer = asyncio.get_running_loop().create_future()
        if self.death is not None or self._tree is None:
            return self.death or Death(0)
        request = json.dumps({"number": self._number, "code": code, "envs": envs}).encode() + b"\n"
        async with asyncio.timeout(timeout):
            with contextlib.suppress(OSError):  # it died: `_die` follows
                await write_all(self._tree.stdin, request)
            return await asyncio.shield(self._answer)

    def interrupt(self) -> None:
        """As Ctrl-C does."""
        if self.death is None and self._pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self._pid, signal.SIGINT)

    async def settle(self) -> bool:
        """End the code that runs: ask, ask what it runs, kill. Whether the process lives on."""
        self.interrupt()
        if not await self._answered(GRACE_SECONDS / 2):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, signal.SIGINT)  # a shell that it waits for by os.system
            if not await self._answered(GRACE_SECONDS / 2):
                self._kill()
                await self.end()
        return self.death is None

    def pause(self) -> None:
        """Read no more output; the process waits when its pipes are full."""
        for output in self._outputs:
            output.pipe.pause()

    def resume(self) -> None:
        """Read on."""
        for output in self._outputs:
            output.pipe.resume()

    async def end(self) -> None:
        """End the process and everything it started; may be repeated."""
        try:
            if self._tree is not None:
                await self._tree.end()
        finally:
            for pipe in (self._replies, *(output.pipe for output in self._outputs)):
                pipe.close()

    def _kill(self) -> None:
        if self.death is None and self._pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self._pid, signal.SIGKILL)

    async def _answered(self, seconds: float) -> bool:
        if self._answer is not None:
            await asyncio.wait([self._answer], timeout=seconds)
        return self._answer is None or self._answer.done()

    def _hear_reply(self, data: bytes) -> None:
        self._received += data
        *lines, self._received = self._received.split(b"\n")
        try:
            for line in lines:
                self._take(json.loads(line))
            if len(self._received) > MAX_REPLY:
                raise ValueError("no reply is that long")
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
            self._received = b""
            self._kill()

    def _take(self, reply: dict[str, Any]) -> None:
        """Raises any of the errors of a wrong shape for what our program does not send."""
        if "ready" in reply:
            self._pid = self._pid or max(2, int(reply["ready"]))
            self._ready.set()
        elif reply.get("done") == self._number:
            self._drain()
            error = reply.get("error")
            keys = ("name", "value", "traceback", "interrupted")
            self._tell(Reply({key: error[key] for key in keys} if error else None))

    def _die(self, exit_code: int) -> None:
        self.death = Death(exit_code)
        self._drain()
        self._ready.set()
        self._tell(self.death)

    def _drain(self) -> None:
        for output in self._outputs:
            output.drain()

    def _tell(self, answer: Reply | Death) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)
