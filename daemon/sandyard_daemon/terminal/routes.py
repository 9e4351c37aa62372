"""`/process/pty`: create, list, info, resize, delete over HTTP; connect and create-connect as WebSockets."""

import asyncio
import binascii
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence

from sandyard_daemon.areas import Context
from sandyard_daemon.errors import BadRequest, DaemonError, Gone, NotFound, envelope
from sandyard_daemon.http.messages import Answer, Handler, Request, Response, Switched, json_response
from sandyard_daemon.http.websocket import WebSocket, is_upgrade, offered_subprotocols
from sandyard_daemon.routes.fields import flag, optional_text
from sandyard_daemon.terminal.attaching import serve_client
from sandyard_daemon.terminal.registry import Terminals, checked_id
from sandyard_daemon.terminal.shells import checked_directory, checked_variables
from sandyard_daemon.terminal.size import Size, checked_size
from sandyard_daemon.terminal.terminal import Terminal, Wish
from sandyard_daemon.wire import OWN_ERROR_HEADER

EXIT_CONTROL = "X-Daytona-Pty-Exit-Control"
ENVS = "X-Daytona-Pty-Envs~"
SDK_VERSION = "X-Daytona-SDK-Version~"
MAX_ENVS = 64 << 10
"""Bytes of the encoded variables of create-connect."""
MAX_MESSAGE = 2 << 20
"""Bytes of one paste."""


class TerminalArea:
    """Parses, calls, answers."""

    def __init__(self, context: Context) -> None:
        self._environment = context.environment
        self._terminals = Terminals(context.environment, context.children)

    def handlers(self) -> dict[str, Handler]:
        """By operation id."""
        handlers: dict[str, Callable[[Request], Awaitable[Answer]]] = {
            "CreatePtySession": self.create,
            "ListPtySessions": self.list_all,
            "GetPtySession": self.get,
            "DeletePtySession": self.delete,
            "ResizePtySession": self.resize,
            "ConnectPtySession": self.connect,
            "CreateConnectPtySession": self.create_connect,
        }
        return {name: _with_error_key(handler) for name, handler in handlers.items()}

    async def close(self) -> None:
        """Hang up every terminal."""
        await self._terminals.close()

    async def create(self, request: Request) -> Response:
        """201 with the id."""
        body = await request.json_object()
        wish = Wish(
            checked_id(body.get("id")),
            checked_directory(self._environment, optional_text(body, "cwd")),
            checked_variables(body.get("envs")),
            checked_size(body.get("cols"), body.get("rows"), default=Size()),
            flag(body, "lazyStart"),
        )
        return json_response(201, {"sessionId": self._terminals.create(wish).wish.terminal_id})

    async def list_all(self, request: Request) -> Response:
        """Those whose shell has not ended."""
        return json_response(200, {"sessions": [terminal.info() for terminal in self._terminals.listed()]})

    async def get(self, request: Request) -> Response:
        """One of them."""
        return json_response(200, self._terminals.get(request.parameters[0]).info())

    async def delete(self, request: Request) -> Response:
        """200 when everything it started is gone."""
        # Shielded: half a deletion because the client left would leave processes nobody can name.
        await asyncio.shield(asyncio.ensure_future(self._terminals.delete(request.parameters[0])))
        # Empty, since the Go SDK's generated client takes nothing but objects for the values of this object.
        return json_response(200, {})

    async def resize(self, request: Request) -> Response:
        """200 with the new size; 410 when it is over."""
        body = await request.json_object()
        size = checked_size(body.get("cols"), body.get("rows"))
        try:
            terminal = self._terminals.get(request.parameters[0])
        except NotFound as error:
            raise Gone(error.message) from error
        terminal.resize(size)
        return json_response(200, terminal.info())

    async def connect(self, request: Request) -> Answer:
        """Attach to one; a lazy one is started."""
        terminal = self._terminals.get(request.parameters[0])
        _check_upgrade(request)
        terminal.start()
        return await _attach(request, terminal)

    async def create_connect(self, request: Request) -> Answer:
        """Create and attach; whatever is wrong is told before the upgrade."""
        query = request.query
        if not query.get("id"):
            raise BadRequest("id is required")
        terminal_id = checked_id(query["id"])
        self._terminals.check_new(terminal_id)
        cols, rows = (_number(query, name) for name in ("cols", "rows"))
        size = checked_size(cols, rows, default=Size())
        envs = checked_variables(_offered_variables(offered_subprotocols(request)))
        cwd = checked_directory(self._environment, query.get("cwd"))
        _check_upgrade(request)
        terminal = self._terminals.create(Wish(terminal_id, cwd, envs, size))
        try:
            return await _attach(request, terminal)
        except BadRequest:  # an upgrade that is none after all
            await self._terminals.delete(terminal_id)
            raise


async def _attach(request: Request, terminal: Terminal) -> Answer:
    offered = offered_subprotocols(request)
    socket = await WebSocket.accept(request, _choice(offered), max_message=MAX_MESSAGE)
    await serve_client(socket, terminal, wants_exit=EXIT_CONTROL in offered)
    return Switched()


def _choice(offered: Sequence[str]) -> str | None:
    """One of what was offered, because browsers want one; the long variables only if there is nothing else."""
    if EXIT_CONTROL in offered:
        return EXIT_CONTROL
    return min(offered, key=lambda token: (not token.startswith(SDK_VERSION), token.startswith(ENVS)), default=None)


def _offered_variables(offered: Sequence[str]) -> object:
    """The value of the token that carries environment variables. Raises `BadRequest`."""
    token = next((token for token in offered if token.startswith(ENVS)), None)
    if token is None:
        return None
    encoded = token.removeprefix(ENVS)
    if len(encoded) > MAX_ENVS:
        raise BadRequest(f"the envs token has more than {MAX_ENVS} bytes")
    try:
        padded = encoded.rstrip("=") + "=" * (-len(encoded.rstrip("=")) % 4)
        plain = binascii.a2b_base64(padded.translate(_URL_SAFE).encode("ascii"), strict_mode=True)
        value = json.loads(plain.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadRequest("the envs token is not base64url of a JSON object") from error
    if not isinstance(value, dict):
        raise BadRequest("the envs token is not base64url of a JSON object")
    return value


_URL_SAFE = {ord("-"): "+", ord("_"): "/", ord("+"): " ", ord("/"): " "}


def _number(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise BadRequest(f"{name} must be a whole number")
    return int(text)


def _check_upgrade(request: Request) -> None:
    if not is_upgrade(request):
        raise BadRequest("this operation is a WebSocket: send an upgrade request")


def _with_error_key(handler: Handler) -> Handler:
    """Errors with the key `error` too, which releases before the envelope read; not for those that decode strictly."""

    async def handle(request: Request) -> Answer:
        try:
            return await handler(request)
        except DaemonError as error:
            if request.caller.decodes_strictly:
                raise
            body = envelope(error, method=request.method, path=request.raw_path) | {"error": error.message}
            return json_response(error.status, body)._replace(headers=((OWN_ERROR_HEADER, error.code),))

    return handle
