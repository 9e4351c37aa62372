"""`/_daemon/exec` and `/_daemon/terminal`: a program by WebSocket, for the SSH gateway and for the web terminal."""

import asyncio
import codecs
import json
import signal
from typing import Any

from sandyard_daemon.areas import Context
from sandyard_daemon.descriptors import Unread
from sandyard_daemon.errors import BadRequest, DaemonError, TooMany
from sandyard_daemon.gateway.program import STDOUT, Order, RunningProgram
from sandyard_daemon.http.messages import Answer, Request, Switched
from sandyard_daemon.http.websocket import Disconnected, WebSocket, is_upgrade, offered_subprotocols
from sandyard_daemon.supervised import HANG_UP
from sandyard_daemon.terminal.attaching import close, first_of
from sandyard_daemon.terminal.shells import checked_directory, checked_variables, exit_message, login_shell
from sandyard_daemon.terminal.size import Size, checked_size

START_SECONDS = 10.0
MAX_MESSAGE = 2 << 20
MAX_PROGRAMS = 256
"""That run at a time."""
_STDIN = 0
_CLOSE_SECONDS = 1.8


class Programs:
    """Owns every program that a WebSocket started."""

    def __init__(self, context: Context) -> None:
        self._environment = context.environment
        self._children = context.children
        self._known: list[RunningProgram] = []

    async def close(self) -> None:
        """Hang up on all of them, and on what they left behind; bounded."""
        ending = [asyncio.ensure_future(each.supervised.end(HANG_UP)) for each in self._known]
        if ending:
            _, pending = await asyncio.wait(ending, timeout=_CLOSE_SECONDS)
            for task in pending:
                task.cancel()

    async def exec(self, request: Request) -> Answer:
        """The first message says what to run."""
        socket = await WebSocket.accept(request, max_message=MAX_MESSAGE)
        try:
            async with asyncio.timeout(START_SECONDS):
                order = self._order(await socket.receive())
            program = self._start(order)
        except Disconnected:
            return Switched()
        except (DaemonError, TimeoutError) as error:
            message = error.message if isinstance(error, DaemonError) else "no order came"
            await socket.send(json.dumps({"type": "error", "error": message}))
            await close(socket, 1000, "")
            return Switched()
        await _converse(socket, program, _ExecForm(socket, program))
        return Switched()

    async def terminal(self, request: Request) -> Answer:
        """A login shell of its own for each socket."""
        if not is_upgrade(request):
            raise BadRequest("this is a WebSocket: send an upgrade request")
        query = request.query
        cols, rows = (int(query[name]) if query.get(name, "").isdecimal() else None for name in ("cols", "rows"))
        size = checked_size(cols, rows, default=Size())
        cwd = checked_directory(self._environment, query.get("cwd"))
        program = self._start(Order(login_shell(self._environment), cwd, size=size))
        try:
            offered = offered_subprotocols(request)
            socket = await WebSocket.accept(request, offered[0] if offered else None, max_message=MAX_MESSAGE)
        except BaseException:
            program.close()
            raise
        await _converse(socket, program, _TerminalForm(socket, program))
        return Switched()

    def _start(self, order: Order) -> RunningProgram:
        """Raises `TooMany`, `Internal`."""
        self._known = [each for each in self._known if not each.supervised.gone.is_set()]
        if sum(not each.supervised.exit.done() for each in self._known) >= MAX_PROGRAMS:
            raise TooMany(f"there are {MAX_PROGRAMS} programs of terminals and SSH already")
        program = RunningProgram.start(order, self._environment, self._children)
        self._known.append(program)
        return program

    def _order(self, message: str | bytes) -> Order:
        """Raises `BadRequest`, `Internal`."""
        try:
            wish = json.loads(message)
        except (ValueError, RecursionError) as error:
            raise BadRequest("the order is not JSON") from error
        if not isinstance(wish, dict):
            raise BadRequest("the order is not a JSON object")
        command, cwd, pty = wish.get("command"), wish.get("cwd"), wish.get("pty")
        if not all(value is None or isinstance(value, str) for value in (command, cwd)):
            raise BadRequest("command and cwd are strings")
        envs = checked_variables(wish.get("envs"))
        size = None
        if pty is not None:
            if not isinstance(pty, dict):
                raise BadRequest("pty is an object")
            size = checked_size(pty.get("cols"), pty.get("rows"), default=Size())
            if isinstance(pty.get("term"), str) and pty["term"]:
                envs = checked_variables({"TERM": pty["term"]}) | envs
        arguments = self._arguments(command, on_terminal=size is not None, login=wish.get("login") is True)
        return Order(arguments, checked_directory(self._environment, cwd), envs, size)

    def _arguments(self, command: str | None, *, on_terminal: bool, login: bool) -> list[str]:
        shell = self._environment.shell()
        if command is None:
            return [shell, *(["-i"] if on_terminal else []), *(["-l"] if login else [])]
        if "\0" in command:
            raise BadRequest("command holds a NUL character")
        return [shell, "-c", command]


class _ExecForm:
    """Streams told apart by a first byte; everything else is text."""

    def __init__(self, socket: WebSocket, program: RunningProgram) -> None:
        self._socket = socket
        self._program = program
        self._taken = 0
        self._news = asyncio.Event()
        program.stdin.on_taken = self._note

    async def tell(self) -> tuple[int, str]:
        """How much of its input the program has taken, for as long as it runs."""
        while True:
            await self._news.wait()
            self._news.clear()
            taken, self._taken = self._taken, 0
            await self._socket.send(json.dumps({"type": "taken", "bytes": taken}))

    def _note(self, count: int) -> None:
        self._taken += count
        self._news.set()

    async def begin(self) -> None:
        await self._socket.send(json.dumps({"type": "started"}))

    async def show(self, stream: int, data: bytes) -> None:
        await self._socket.send(bytes([stream]) + data)

    async def take(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            if message[:1] != bytes([_STDIN]):
                raise BadRequest("binary messages begin with the byte 0 and carry standard input")
            await self._program.stdin.put(message[1:])
            return
        order = _object(message)
        kind = order.get("type")
        if kind == "eof":
            await self._program.end_input()
        elif kind == "resize":
            self._program.resize(checked_size(order.get("cols"), order.get("rows")))
        elif kind == "signal":
            self._program.send_signal(_signal(order.get("name")))
        else:
            raise BadRequest("the type of a text message is eof, resize or signal")

    async def end(self, said: dict[str, Any], number: int) -> None:
        name = signal.Signals(number).name.removeprefix("SIG") if number in set(signal.Signals) else None
        await self._socket.send(json.dumps({"type": "exited", **said, "signal": name}))


class _TerminalForm:
    """Everything typed or shown, output as text cut at characters; `{"rows": R, "cols": C}` alone is a resize."""

    def __init__(self, socket: WebSocket, program: RunningProgram) -> None:
        self._socket = socket
        self._program = program
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    async def tell(self) -> tuple[int, str]:
        """Nothing: people type slowly."""
        return await asyncio.Future()

    async def begin(self) -> None:
        """Nothing: the shell speaks first."""

    async def show(self, stream: int, data: bytes) -> None:
        if text := self._decoder.decode(data):
            await self._socket.send(text)

    async def take(self, message: str | bytes) -> None:
        if isinstance(message, str) and (size := _resize(message)) is not None:
            self._program.resize(size)
            return
        await self._program.stdin.put(message.encode("utf-8", "replace") if isinstance(message, str) else message)

    async def end(self, said: dict[str, Any], number: int) -> None:
        if text := self._decoder.decode(b"", final=True):
            await self._socket.send(text)


async def _converse(socket: WebSocket, program: RunningProgram, form: _ExecForm | _TerminalForm) -> None:
    async def show() -> tuple[int, str]:
        exit = await program.relay(form.show)
        said = exit_message(exit)
        if exit.problem:
            await form.show(STDOUT, f"cannot start: {exit.problem}\r\n".encode())
        await form.end(said, exit.signal)
        return 1000, json.dumps(said)

    async def take() -> tuple[int, str]:
        while True:
            try:
                await form.take(await socket.receive())
            except Unread as error:
                return 1008, json.dumps({"error": str(error)})
            except BadRequest as error:
                return 1007, json.dumps({"error": error.message[:100]})

    try:
        await form.begin()
        code, reason = await first_of(show(), take(), form.tell())
        program.close()
        await close(socket, code, reason)
    except Disconnected:
        socket.abort()
    finally:
        program.close()


def _resize(message: str) -> Size | None:
    """The size that a message is, if it is just that; anything else was typed."""
    if not message.startswith("{"):
        return None
    try:
        value = json.loads(message)
        if isinstance(value, dict) and set(value) == {"rows", "cols"}:
            return checked_size(value["cols"], value["rows"])
    except (ValueError, RecursionError, BadRequest):
        return None
    return None


def _object(message: str) -> dict[str, Any]:
    try:
        value = json.loads(message)
    except (ValueError, RecursionError) as error:
        raise BadRequest("the message is not JSON") from error
    if not isinstance(value, dict):
        raise BadRequest("the message is not a JSON object")
    return value


def _signal(name: object) -> signal.Signals:
    """By its name without `SIG`, as SSH has it."""
    try:
        return signal.Signals[f"SIG{name}"]
    except KeyError:
        raise BadRequest(f"unknown signal: {str(name)[:20]}") from None
