"""All terminals of the sandbox by their ids."""

import asyncio
import os

from sandyard_daemon.children import Children
from sandyard_daemon.environment import Environment
from sandyard_daemon.errors import BadRequest, Conflict, NotFound, TooMany
from sandyard_daemon.supervised import HANG_UP, Supervised
from sandyard_daemon.terminal.terminal import Terminal, Wish

MAX_TERMINALS = 256
MAX_ID = 255
"""Bytes of an id."""

_RESERVED = frozenset({".", "..", "create-connect"})
_CLOSE_SECONDS = 1.8


class Terminals:
    """Creates, finds, lists and ends."""

    def __init__(self, environment: Environment, children: Children) -> None:
        self._environment = environment
        self._children = children
        self._terminals: dict[str, Terminal] = {}
        self._left: list[Supervised] = []
        """Ended shells of which something runs on in the background."""

    def create(self, wish: Wish) -> Terminal:
        """Make one, and start it unless it is lazy. Raises `Conflict`, `TooMany`, `Internal`."""
        self.check_new(wish.terminal_id)
        if len(self._terminals) >= MAX_TERMINALS:
            raise TooMany(f"there are {MAX_TERMINALS} PTY sessions already; delete one first")
        terminal = Terminal(wish, self._environment, self._children, self._forget)
        if not wish.is_lazy:
            terminal.start()
        self._terminals[wish.terminal_id] = terminal
        return terminal

    def check_new(self, terminal_id: str) -> None:
        """Raises `Conflict`."""
        if terminal_id in self._terminals:
            raise Conflict(f"PTY session already exists: {terminal_id}")

    def get(self, terminal_id: str) -> Terminal:
        """Raises `NotFound`."""
        try:
            return self._terminals[terminal_id]
        except KeyError:
            raise NotFound(f"PTY session not found: {terminal_id}") from None

    def listed(self) -> list[Terminal]:
        """Oldest first."""
        return list(self._terminals.values())

    async def delete(self, terminal_id: str) -> None:
        """End everything it ever started and forget it. Raises `NotFound`."""
        terminal = self.get(terminal_id)
        del self._terminals[terminal_id]
        await terminal.end()

    async def close(self) -> None:
        """Hang up everywhere, side by side; bounded."""
        terminals = self.listed()
        ending = [terminal.end(HANG_UP) for terminal in terminals]
        ending += [process.end(HANG_UP) for process in self._left]
        if ending:
            tasks = [asyncio.ensure_future(each) for each in (*ending, *(each.wait_over() for each in terminals))]
            _, pending = await asyncio.wait(tasks, timeout=_CLOSE_SECONDS)
            for task in pending:
                task.cancel()

    def _forget(self, terminal: Terminal) -> None:
        name = terminal.wish.terminal_id
        if self._terminals.get(name) is terminal:
            del self._terminals[name]
        self._left = [process for process in self._left if not process.gone.is_set()]
        if terminal.process is not None and not terminal.process.gone.is_set():
            self._left.append(terminal.process)


def checked_id(value: object) -> str:
    """A client's id, or a new one where it sent none. Raises `BadRequest`."""
    if value is None or value == "":
        return f"pty-{os.urandom(8).hex()}"
    if not isinstance(value, str):
        raise BadRequest("id must be a string")
    if value in _RESERVED or "/" in value or "\\" in value or not value.isprintable() or not value.strip():
        raise BadRequest("a PTY session's id holds no slashes and no control characters and is no reserved word")
    if len(value.encode("utf-8", "surrogatepass")) > MAX_ID:
        raise BadRequest(f"a PTY session's id has at the most {MAX_ID} bytes")
    return value
