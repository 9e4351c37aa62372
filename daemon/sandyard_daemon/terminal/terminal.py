"""One terminal: a shell on its far side, any number of clients on ours."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from sandyard_daemon.children import Children
from sandyard_daemon.descriptors import Reader, Writer
from sandyard_daemon.environment import Environment
from sandyard_daemon.errors import timestamp
from sandyard_daemon.supervised import KILL, KILLED, Exit, Supervised
from sandyard_daemon.terminal.output import Output
from sandyard_daemon.terminal.shells import TERM, login_shell, terminal_program
from sandyard_daemon.terminal.size import Size, open_terminal, set_size

DRAIN_SECONDS = 5.0
"""How long output is still taken after the shell's end while a program holds the terminal open and writes."""
QUIET_SECONDS = 0.2
"""Silence that means that such a program has nothing to say."""
AHEAD = 256 << 10
"""Bytes the fastest client may lack before the program is held back."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client asked for."""

    terminal_id: str
    cwd: str
    """A whole path."""
    envs: dict[str, str]
    size: Size
    is_lazy: bool = False


@dataclass(eq=False, slots=True)
class Attachment:
    """One client's place in the output."""

    offset: int
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when there may be something to send."""
    lateness: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when output that it lacks is forgotten: a slow consumer."""


class Terminal:
    """Started at once or with its first client; over when its shell ended and what was written is read."""

    def __init__(
        self, wish: Wish, environment: Environment, children: Children, ended: Callable[["Terminal"], None]
    ) -> None:
        """`ended` is called once, at the shell's end."""
        self.wish = wish
        self.size = wish.size
        self.created_at = timestamp()
        self.output = Output()
        self.exit: Exit | None = None
        """Known when it is over: nothing more is written to `output` then."""
        self.process: Supervised | None = None
        self._environment = environment
        self._children = children
        self._ended = ended
        self._killed = False
        self._was_seen = False
        self._attachments: set[Attachment] = set()
        self._taken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_active(self) -> bool:
        """Whether its shell runs."""
        return self.process is not None and not self.process.exit.done()

    def info(self) -> dict[str, object]:
        """As clients see it. *Source:* sdk-wire.md 4.7."""
        return {
            "id": self.wish.terminal_id,
            "cwd": self.wish.cwd,
            "envs": {"TERM": TERM, **self.wish.envs},
            "cols": self.size.cols,
            "rows": self.size.rows,
            "createdAt": self.created_at,
            "active": self.is_active,
            "lazyStart": self.wish.is_lazy,
        }

    def start(self) -> None:
        """Start the shell if it has not been. Raises `Internal`."""
        if self.process is not None or self.exit is not None:
            return
        arguments = login_shell(self._environment)
        near, far = open_terminal(self.size)
        try:
            program = terminal_program(self._environment, arguments, far=far, cwd=self.wish.cwd, envs=self.wish.envs)
            self.process = Supervised(program, self._children)
        except BaseException:
            os.close(near)
            raise
        finally:
            os.close(far)
        self._near = Reader(near)
        self._keyboard = Writer(os.dup(near))
        self._near_descriptor = near
        self._task = asyncio.get_running_loop().create_task(self._run(self.process))

    def resize(self, size: Size) -> None:
        """Programs learn of it by SIGWINCH."""
        self.size = size
        if self._task is not None and self._near.is_open:
            set_size(self._near_descriptor, size)

    async def type(self, data: bytes) -> None:
        """What a client typed. Raises `Unread`."""
        if self._task is not None:
            await self._keyboard.put(data)

    def attach(self) -> tuple[Attachment, bytes]:
        """A client's place behind the newest output, and the recent output before it."""
        attachment = Attachment(self.output.end)
        self._attachments.add(attachment)
        replay = self.output.replay(with_questions=not self._was_seen)
        self._was_seen = True
        return attachment, replay

    def detach(self, attachment: Attachment) -> None:
        """The client is gone."""
        self._attachments.discard(attachment)
        self._taken.set()

    def take(self, attachment: Attachment) -> bytes:
        """The next output for a client; empty when it has all."""
        data = self.output.read(attachment.offset)
        attachment.offset += len(data)
        self._taken.set()
        return data

    async def end(self, how: bytes = KILL) -> None:
        """End everything it ever started, and return when that is gone. Its clients are told 137."""
        self._killed = True
        if self.process is None:
            self._finish(Exit(KILLED))
            self._ended(self)
        else:
            await self.process.end(how)

    async def wait_over(self) -> None:
        """Return when it is over; at once where it never began."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _run(self, process: Supervised) -> None:
        reading = asyncio.get_running_loop().create_task(self._read())
        try:
            exit = await asyncio.shield(process.exit)
            self._ended(self)
            await self._drain(reading)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            self._near.close()
            self._keyboard.close()
        if exit.problem:
            self.output.append(f"cannot start the shell: {exit.problem}\r\n".encode(), self.output.end)
        self._finish(Exit(KILLED) if self._killed else exit)

    def _finish(self, exit: Exit) -> None:
        self.exit = exit
        for attachment in self._attachments:
            attachment.news.set()

    async def _read(self) -> None:
        while data := await self._near.read():
            slowest = min((each.offset for each in self._attachments), default=self.output.end)
            self.output.append(data, slowest)
            for attachment in self._attachments:
                attachment.news.set()
                if attachment.offset < self.output.start:
                    attachment.lateness.set()
            while self._all_lack():
                self._taken.clear()
                await self._taken.wait()

    def _all_lack(self) -> bool:
        """Whether even the fastest client lacks so much that the program should wait."""
        fastest = max(
            (each.offset for each in self._attachments if not each.lateness.is_set()), default=self.output.end
        )
        return self.output.end - fastest > AHEAD

    async def _drain(self, reading: "asyncio.Task[None]") -> None:
        """Until the terminal is let go of, or nothing comes any more; bounded."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + DRAIN_SECONDS
        while not reading.done() and loop.time() < deadline:
            had = self.output.end
            await asyncio.wait([reading], timeout=QUIET_SECONDS)
            if self.output.end == had and not self._all_lack():
                return
