"""One program for one client: on a terminal or on three pipes, its output carried as fast as the client takes it."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from sandyard_daemon.children import Children
from sandyard_daemon.descriptors import Reader, Writer
from sandyard_daemon.environment import Environment
from sandyard_daemon.errors import Internal
from sandyard_daemon.supervised import HANG_UP, Exit, Program, Supervised
from sandyard_daemon.terminal.shells import terminal_program
from sandyard_daemon.terminal.size import Size, open_terminal, set_size

STDOUT, STDERR = 1, 2
DRAIN_SECONDS = 5.0
"""How long output is still taken after the program's end while helpers of it write on."""
QUIET_SECONDS = 0.1

Send = Callable[[int, bytes], Awaitable[None]]
"""Takes output of `STDOUT` or `STDERR`; waits while the client is slow."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to run."""

    arguments: list[str]
    cwd: str
    envs: dict[str, str] = field(default_factory=dict)
    size: Size | None = None
    """On a terminal of this size; `None`: on three pipes."""


class RunningProgram:
    """Started by `start`; `close` when its client is gone."""

    def __init__(self, supervised: Supervised, stdin: Writer, outputs: dict[int, Reader], near: int | None) -> None:
        self.supervised = supervised
        self.stdin = stdin
        self._outputs = outputs
        self._near = near
        self._moved = 0
        self._sending = 0

    @classmethod
    def start(cls, order: Order, environment: Environment, children: Children) -> "RunningProgram":
        """Raises `Internal`."""
        if order.size is not None:
            return cls._on_terminal(order, order.size, environment, children)
        pipes: list[int] = []
        try:
            for _ in range(3):
                pipes += os.pipe2(os.O_CLOEXEC)
        except OSError as error:
            _close(pipes)
            raise Internal(f"cannot start a process: {error.strerror}") from error
        far = (pipes[0], pipes[3], pipes[5])
        directories = (order.cwd, environment.home, "/")
        variables = {**environment.variables, **order.envs}
        program = Program(order.arguments, variables, directories, environment.descriptor_limits, far)
        near = (pipes[1], pipes[2], pipes[4])
        supervised = _supervised(program, children, near)
        return cls(supervised, Writer(near[0]), {STDOUT: Reader(near[1]), STDERR: Reader(near[2])}, None)

    @classmethod
    def _on_terminal(cls, order: Order, size: Size, environment: Environment, children: Children) -> "RunningProgram":
        near, far = open_terminal(size)
        program = terminal_program(environment, order.arguments, far=far, cwd=order.cwd, envs=order.envs)
        supervised = _supervised(program, children, (near,))
        return cls(supervised, Writer(os.dup(near)), {STDOUT: Reader(near)}, near)

    async def end_input(self) -> None:
        """Nothing more is typed: the end of a pipe, Ctrl-D on a terminal, where a hang-up would lose the output."""
        if self._near is None:
            self.stdin.end()
        else:
            await self.stdin.put(b"\x04")

    def resize(self, size: Size) -> None:
        """Nothing without a terminal."""
        if self._near is not None and self._outputs[STDOUT].is_open:
            set_size(self._near, size)

    def send_signal(self, number: signal.Signals) -> None:
        """To the program and its process group."""
        self.supervised.send_signal(number)

    async def relay(self, send: Send) -> Exit:
        """Carry its output until it is over. One call."""
        pumps = [asyncio.ensure_future(self._pump(stream, send)) for stream in self._outputs]
        try:
            exit = await self._exit_or_failure(pumps)
            await self._drain(pumps)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        return exit

    def close(self) -> None:
        """Hang up if it still runs; what it left in the background goes on if it has ended."""
        if not self.supervised.exit.done():
            self.supervised.begin_end(HANG_UP)
        self.stdin.close()
        for output in self._outputs.values():
            output.close()

    async def _exit_or_failure(self, pumps: "Sequence[asyncio.Future[None]]") -> Exit:
        """Its end. Raises what a client that is gone makes `send` raise."""
        waiting: set[asyncio.Future[None] | asyncio.Future[Exit]] = {*pumps, self.supervised.exit}
        while not self.supervised.exit.done():
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
        return self.supervised.exit.result()

    async def _pump(self, stream: int, send: Send) -> None:
        while data := await self._outputs[stream].read():
            self._moved += len(data)
            self._sending += 1
            await send(stream, data)
            self._sending -= 1

    async def _drain(self, pumps: "Sequence[asyncio.Future[None]]") -> None:
        """Until all is let go of or nothing comes any more; a slow client is waited for."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + DRAIN_SECONDS
        while True:
            had = self._moved
            done, pending = await asyncio.wait(pumps, timeout=QUIET_SECONDS)
            for each in done:
                each.result()
            if not pending or (not self._sending and (self._moved == had or loop.time() > deadline)):
                return


def _supervised(program: Program, children: Children, near: tuple[int, ...]) -> Supervised:
    """Start; the far ends are closed in any case, the near ones when it fails."""
    assert program.streams is not None  # noqa: S101  both callers give some
    try:
        return Supervised(program, children)
    except BaseException:
        _close(near)
        raise
    finally:
        _close(set(program.streams))


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
