"""The interpreter's operations: contexts by REST, executions by WebSocket."""

import asyncio
import contextlib
import json
import os
from collections.abc import Sequence
from typing import Any

from sandyard_daemon.children import Children
from sandyard_daemon.environment import Environment
from sandyard_daemon.errors import BadRequest, InvalidBody, NotFound
from sandyard_daemon.http.messages import Answer, Handler, Request, Switched, json_response
from sandyard_daemon.http.websocket import Disconnected, WebSocket, offered_subprotocols
from sandyard_daemon.interpreter.context import Context, Execution
from sandyard_daemon.interpreter.errors import QueueFull, WorkerFailed
from sandyard_daemon.routes.fields import optional_text, required_text, seconds, variables
from sandyard_daemon.sessions.session import new_command_id
from sandyard_daemon.wire.versions import SUBPROTOCOL_PREFIX, Caller

DEFAULT = "default"
MAX_CONTEXTS = 128
MAX_MESSAGE = 16 << 20
"""Bytes of a request."""
REQUEST_SECONDS = 30.0
"""How long a client may take to say what to run."""
DEFAULT_TIMEOUT = 600.0
CLOSE_SECONDS = 2.0

_TIMED_OUT, _TIMED_OUT_FOR_GO = 4008, 4001  # contract/sdk-wire.md 4.8
_MALFORMED, _REFUSED = 1002, 1008


class _Refused(Exception):
    """The socket is to be closed with this code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class InterpreterArea:
    """The contexts of a sandbox. The default one starts with its first execution."""

    def __init__(self, environment: Environment, children: Children) -> None:
        self._environment = environment
        self._children = children
        self._default = Context(DEFAULT, environment.work_dir, environment, children)
        self._contexts: dict[str, Context] = {}

    def handlers(self) -> dict[str, Handler]:
        """By operation id."""
        return {
            "CreateInterpreterContext": self.create,
            "ListInterpreterContexts": self.list,
            "DeleteInterpreterContext": self.delete,
            "ExecuteInterpreterCode": self.execute,
        }

    async def close(self) -> None:
        """End every context side by side; what takes longer ends with its supervisor."""
        closing = [asyncio.ensure_future(each.close()) for each in (self._default, *self._contexts.values())]
        _, late = await asyncio.wait(closing, timeout=CLOSE_SECONDS)
        for task in late:
            task.cancel()

    async def create(self, request: Request) -> Answer:
        """200 with a context whose process runs."""
        body = await request.json_object()
        language = optional_text(body, "language")
        if language and language.strip().lower() != "python":
            raise BadRequest(f"unsupported language {language!r}: contexts are for python")
        cwd = self._directory(optional_text(body, "cwd"))
        if len(self._contexts) >= MAX_CONTEXTS:
            raise BadRequest(f"there are {MAX_CONTEXTS} contexts already: delete some")
        context = Context(new_command_id(), cwd, self._environment, self._children)
        self._contexts[context.context_id] = context
        try:
            await context.start()
        except WorkerFailed as error:
            raise BadRequest(f"cannot start an interpreter: {error}") from error
        finally:
            if not context.is_active:
                self._contexts.pop(context.context_id, None)
        return json_response(200, _shown(context))

    async def list(self, request: Request) -> Answer:
        """200 with all contexts but the default one, the oldest first."""
        return json_response(200, {"contexts": [_shown(context) for context in self._contexts.values()]})

    async def delete(self, request: Request) -> Answer:
        """200 when everything that ran in it is gone."""
        context_id = request.parameters[0]
        if context_id == DEFAULT:
            raise BadRequest("the default context cannot be deleted")
        context = self._contexts.pop(context_id, None)
        if context is None:
            raise NotFound(f"context not found: {context_id}")
        await context.close()
        return json_response(200, {"message": f"context {context_id} was deleted"})

    async def execute(self, request: Request) -> Answer:
        """One execution: its request is the first message; its output, its error and its end follow."""
        offered = offered_subprotocols(request)
        caller = Caller.of(request.header, offered)
        socket = await WebSocket.accept(request, _chosen(offered), max_message=MAX_MESSAGE)
        try:
            context, execution = await self._read(socket, caller)
        except _Refused as refused:
            await socket.close(refused.code, refused.reason)
        except Disconnected:
            return Switched()
        else:
            await _converse(socket, context, execution)
        return Switched()

    async def _read(self, socket: WebSocket, caller: Caller) -> tuple[Context, Execution]:
        """Raises `_Refused`, `Disconnected`."""
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                body = _parse(await socket.receive())
        except TimeoutError:
            raise _Refused(_REFUSED, "no request came") from None
        try:
            code, context_id = required_text(body, "code"), optional_text(body, "contextId") or DEFAULT
            envs, timeout = variables(body, "envs"), seconds(body, "timeout")
        except InvalidBody as error:
            raise _Refused(_REFUSED, error.message) from error
        if body.get("timeout") is None:
            timeout = DEFAULT_TIMEOUT
        execution = Execution(code, envs, timeout, _TIMED_OUT_FOR_GO if caller.is_go else _TIMED_OUT)
        context = self._default if context_id == DEFAULT else self._contexts.get(context_id)
        if context is None:
            reason = f"context not found: {context_id}"
            execution.fail("ContextNotFound", reason, _REFUSED)
            return self._default, execution
        try:
            context.submit(execution)
        except QueueFull as error:
            raise _Refused(_REFUSED, str(error)) from error
        return context, execution

    def _directory(self, cwd: str | None) -> str:
        """Raises `BadRequest` for what cannot be entered."""
        path = os.path.normpath(self._environment.resolve(cwd))
        if "\0" in path or not os.path.isdir(path) or not os.access(path, os.X_OK):
            raise BadRequest(f"cwd is no directory that can be entered: {path}")
        return path


async def _converse(socket: WebSocket, context: Context, execution: Execution) -> None:
    """Send what there is and close; a client that leaves does not end its code."""
    listening = asyncio.ensure_future(_listen(socket, context, execution))
    try:
        while (message := await execution.channel.next()) is not None:
            await socket.send(message)
    except Disconnected:
        execution.channel.abandon()
    finally:
        listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listening
        if execution.channel.ending is None:
            execution.channel.abandon()
    await socket.close(*(execution.channel.ending or (1000, "")))


async def _listen(socket: WebSocket, context: Context, execution: Execution) -> None:
    """Answer pings, notice that the client left, and take the one thing it may say: `{"type": "interrupt"}`."""
    try:
        while True:
            message = await socket.receive()
            with contextlib.suppress(_Refused):
                if _parse(message).get("type") == "interrupt":
                    context.interrupt(execution)
    except Disconnected:
        execution.channel.abandon()


def _parse(message: str | bytes) -> dict[str, Any]:
    """A JSON object with lower-cased keys. Raises `_Refused`."""
    try:
        text = message if isinstance(message, str) else message.decode()
        value = json.loads(text)
        if "\\ud" in text.lower():  # half a character, which nothing can encode
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise _Refused(_MALFORMED, "the request is not valid JSON") from None
    if not isinstance(value, dict):
        raise _Refused(_MALFORMED, "the request must be a JSON object")
    return {key.lower(): item for key, item in value.items()}


def _chosen(offered: Sequence[str]) -> str | None:
    """One of the offered subprotocols, for browsers and Node insist on it; the SDK's version where it is among them."""
    versions = [token for token in offered if token.lower().startswith(SUBPROTOCOL_PREFIX.lower())]
    return next(iter([*versions, *offered]), None)


def _shown(context: Context) -> dict[str, Any]:
    return {
        "id": context.context_id,
        "cwd": context.cwd,
        "createdAt": context.created_at,
        "active": context.is_active,
        "language": "python",
    }
