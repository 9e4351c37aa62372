"""A context: variables that live from one execution to the next, executions one after the other."""

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from sandyard_daemon.children import Children
from sandyard_daemon.environment import Environment
from sandyard_daemon.errors import timestamp
from sandyard_daemon.interpreter.channel import Channel
from sandyard_daemon.interpreter.errors import QueueFull, WorkerFailed
from sandyard_daemon.interpreter.worker import Death, Reply, Worker

MAX_WAITING = 128
"""Executions in a context's queue."""
MAX_BACKLOG = 64 << 10
"""Characters kept of what is written between two executions."""
DELETED, BROKEN = 1001, 1011
"""Close codes."""


@dataclass(slots=True)
class Execution:
    """A piece of code and the channel of who waits for it."""

    code: str
    envs: Mapping[str, str]
    timeout: float | None
    """Seconds from the moment it runs."""
    timeout_close: int
    channel: Channel = field(default_factory=Channel)

    def fail(self, name: str, reason: str, close: int) -> None:
        """It cannot go on."""
        self.channel.error(name, reason)
        self.channel.end(close, reason)


class Backlog:
    """What was written while nobody listened: the next execution's client gets it first."""

    def __init__(self) -> None:
        self._pieces: deque[tuple[str, str]] = deque()
        self._size = 0
        self._dropped = 0

    def add(self, stream: str, text: str) -> None:
        """Keep it; of too much the oldest is dropped, and counted."""
        self._pieces.append((stream, text))
        self._size += len(text)
        while self._size > MAX_BACKLOG:
            _, gone = self._pieces.popleft()
            self._size -= len(gone)
            self._dropped += len(gone)

    def deliver(self, channel: Channel) -> None:
        """Hand over everything."""
        if self._dropped:
            channel.output("stderr", f"[{self._dropped} characters of earlier background output were not kept]\n")
        while self._pieces:
            channel.output(*self._pieces.popleft())
        self._size = self._dropped = 0


class Context:
    """One worker, started when needed and again after it died."""

    def __init__(self, context_id: str, cwd: str, environment: Environment, children: Children) -> None:
        self.context_id = context_id
        self.cwd = cwd
        self.created_at = timestamp()
        self._environment = environment
        self._children = children
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._worker: Worker | None = None
        self._current: Execution | None = None
        self._backlog = Backlog()
        self._loss = 0
        self._reason = ""
        self._is_closed = False

    @property
    def is_active(self) -> bool:
        """Whether its process lives."""
        return self._worker is not None and self._worker.death is None

    async def start(self) -> None:
        """Start the worker now. Raises `WorkerFailed`."""
        async with self._turn:
            await self._living_worker()

    def submit(self, execution: Execution) -> None:
        """Run it when its turn comes; it does not end with its client. Raises `QueueFull`."""
        if len(self._tasks) > MAX_WAITING:
            raise QueueFull(f"{MAX_WAITING} executions are waiting in this context")
        task = asyncio.get_running_loop().create_task(self._perform(execution, self._loss))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def interrupt(self, execution: Execution) -> None:
        """As Ctrl-C does, if it is this one that runs."""
        if self._current is execution and self._worker is not None:
            self._worker.interrupt()

    async def close(self) -> None:
        """End its process and everything that one started; what runs or waits fails."""
        self._is_closed = True
        if self._worker is not None:
            await self._worker.end()
        async with self._turn:  # one that was just starting
            if self._worker is not None:
                await self._worker.end()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _perform(self, execution: Execution, loss: int) -> None:
        try:
            async with self._turn:
                if self._is_closed:
                    execution.fail("ContextDeleted", "the context was deleted", DELETED)
                elif loss != self._loss:
                    execution.fail("InterpreterLost", f"not run: {self._reason}", BROKEN)
                else:
                    await self._execute(execution)
        finally:
            execution.channel.end(BROKEN, "the interpreter's daemon stops")

    async def _execute(self, execution: Execution) -> None:
        try:
            worker = await self._living_worker(execution.channel)
        except WorkerFailed as error:
            execution.fail("InterpreterUnavailable", str(error), BROKEN)
            return
        if self._is_closed:
            execution.fail("ContextDeleted", "the context was deleted", DELETED)
            return
        self._current = execution
        self._backlog.deliver(execution.channel)
        try:
            result = await worker.run(execution.code, dict(execution.envs), execution.timeout)
            self._finish(execution, result)
        except TimeoutError:
            execution.channel.end(execution.timeout_close, f"execution timed out after {execution.timeout:g} seconds")
            worker.resume()
            if not await worker.settle():
                self._lose("the execution before did not end in time and the interpreter had to be killed")
        finally:
            self._current = None
            execution.channel.room = None
            worker.resume()
        if worker.death is not None:
            await worker.end()

    def _finish(self, execution: Execution, result: Reply | Death) -> None:
        channel = execution.channel
        if isinstance(result, Death):
            if self._is_closed:
                execution.fail("ContextDeleted", "the context was deleted", DELETED)
                return
            self._lose(f"the interpreter process {result}")
            execution.fail("InterpreterDied", f"{self._reason}; the context's variables are lost", BROKEN)
            return
        error = result.error
        if error is not None:
            channel.error(str(error["name"]), str(error["value"]), str(error["traceback"]))
        channel.control("interrupted" if error is not None and error["interrupted"] else "completed")
        channel.end(1000)

    def _lose(self, reason: str) -> None:
        """The state is gone: what was sent counting on it must not run."""
        self._loss += 1
        self._reason = reason
        self._worker = None

    async def _living_worker(self, channel: Channel | None = None) -> Worker:
        """The worker, a new one if there is none. Raises `WorkerFailed`."""
        if self._worker is not None and self._worker.death is not None:
            if channel is not None:
                died = f"the interpreter process {self._worker.death} since the last execution"
                channel.output("stderr", f"[{died}; it was started again and the context's variables are lost]\n")
            await self._worker.end()
            self._worker = None
        if self._worker is None:
            self._worker = await Worker.start(self._environment, self._children, self.cwd, self._hear)
        return self._worker

    def _hear(self, stream: str, text: str) -> None:
        execution = self._current
        if execution is None:
            self._backlog.add(stream, text)
            return
        execution.channel.output(stream, text)
        if execution.channel.is_full and execution.channel.ending is None and self._worker is not None:
            self._worker.pause()
            execution.channel.room = self._worker.resume
