"""`/lsp/*`: from bodies and queries to language servers, one for each language and project."""

import asyncio
import contextlib
from typing import Any

from sandyard_daemon.areas import Context
from sandyard_daemon.errors import BadRequest, InvalidBody, ServerNotInitialized
from sandyard_daemon.http.messages import Handler, Request, Response, json_response
from sandyard_daemon.lsp import places, programs
from sandyard_daemon.lsp.server import LanguageServer
from sandyard_daemon.routes.fields import required_text

MAX_SERVERS = 16

_MAX_NUMBER = 2**31 - 1
_MAX_TEXT = 4096

Key = tuple[str, str]


class LspArea:
    """The language servers of the sandbox."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._servers: dict[Key, asyncio.Task[LanguageServer]] = {}

    def handlers(self) -> dict[str, Handler]:
        """By operation id."""
        return {
            "Start": self.start,
            "Stop": self.stop,
            "DidOpen": self.did_open,
            "DidClose": self.did_close,
            "Completions": self.completions,
            "DocumentSymbols": self.document_symbols,
            "WorkspaceSymbols": self.workspace_symbols,
        }

    async def close(self) -> None:
        """Kill every server; their processes and pipes are gone afterwards."""
        tasks = [*self._servers.values()]
        self._servers.clear()
        await asyncio.gather(*(_end(task, politely=False) for task in tasks))

    async def start(self, request: Request) -> Response:
        """200 when it runs, whoever started it. A server that crashed is started again."""
        body = await request.json_object()
        language_id, name = _language(body), _text(body, "pathToProject")
        key = (language_id, places.project(name, self._work_dir))
        task = self._servers.get(key)
        if task is None or _is_over(task):
            task = self._begin(key)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise ServerNotInitialized("the language server was stopped while it started") from None
            raise
        return Response(200)

    async def stop(self, request: Request) -> Response:
        """200 when the process is gone; one that crashed is put away."""
        key = self._key(await request.json_object())
        task = self._servers.pop(key, None)
        if task is None:
            raise _not_started(key)
        await _end(task, politely=True)
        return Response(200)

    async def did_open(self, request: Request) -> Response:
        """Opened again, the server gets the present text."""
        server, path = self._document(await request.json_object())
        await server.open(path)
        return Response(200)

    async def did_close(self, request: Request) -> Response:
        """Closing what is not open changes nothing."""
        server, path = self._document(await request.json_object())
        await server.shut(path)
        return Response(200)

    async def completions(self, request: Request) -> Response:
        """What may stand at a position."""
        body = await request.json_object()
        position, context = _position(body.get("position")), _context(body.get("context"))
        server, path = self._document(body)
        return json_response(200, await server.completions(path, position, context))

    async def document_symbols(self, request: Request) -> Response:
        """What a document defines, flat."""
        server, path = self._document(_query(request))
        return json_response(200, await server.document_symbols(path))

    async def workspace_symbols(self, request: Request) -> Response:
        """What the project defines; an empty query asks for all, where the server knows how."""
        fields = _query(request)
        if "query" not in fields:
            raise BadRequest("query is required")
        if len(fields["query"]) > _MAX_TEXT:
            raise BadRequest(f"query is longer than {_MAX_TEXT} characters")
        server = self._server(fields)
        return json_response(200, await server.workspace_symbols(fields["query"]))

    @property
    def _work_dir(self) -> str:
        return self._context.environment.work_dir

    def _begin(self, key: Key) -> "asyncio.Task[LanguageServer]":
        """Start one, in the place of one that ended. Raises `BadRequest`, `Internal`."""
        found = programs.find(*key, self._context.environment.variables)
        self._servers.pop(key, None)
        if len(self._servers) >= MAX_SERVERS:
            self._servers = {key: task for key, task in self._servers.items() if not _is_over(task)}
        if len(self._servers) >= MAX_SERVERS:
            raise BadRequest(f"{MAX_SERVERS} language servers run already; stop one")
        starting = LanguageServer.start(*key, found, self._context.environment, self._context.children)
        task = self._servers[key] = asyncio.ensure_future(starting)
        task.add_done_callback(lambda done: self._settle(key, done))
        return task

    def _settle(self, key: Key, task: "asyncio.Task[LanguageServer]") -> None:
        """A start that failed leaves no trace, asked for or not."""
        if (task.cancelled() or task.exception() is not None) and self._servers.get(key) is task:
            del self._servers[key]

    def _key(self, fields: dict[str, Any]) -> Key:
        return _language(fields), places.project_name(_text(fields, "pathToProject"), self._work_dir)

    def _server(self, fields: dict[str, Any]) -> LanguageServer:
        """Raises `ServerNotInitialized`."""
        key = self._key(fields)
        task = self._servers.get(key)
        if task is None or not task.done():
            raise _not_started(key)
        return task.result()

    def _document(self, fields: dict[str, Any]) -> tuple[LanguageServer, str]:
        uri = _text(fields, "uri")
        server = self._server(fields)
        return server, places.document(uri, server.project, self._work_dir, server.documents)


async def _end(task: "asyncio.Task[LanguageServer]", *, politely: bool) -> None:
    """Whatever it has come to. A start under way is given up, and cleans up after itself."""
    task.cancel()  # does nothing to one that is done
    with contextlib.suppress(asyncio.CancelledError, Exception):  # what a start failed with was told to who asked
        server = await task
        await (server.stop() if politely and server.why_ended is None else server.kill())


def _is_over(task: "asyncio.Task[LanguageServer]") -> bool:
    if not task.done():
        return False
    return task.cancelled() or task.exception() is not None or task.result().why_ended is not None


def _not_started(key: Key) -> ServerNotInitialized:
    return ServerNotInitialized(f"no language server for {key[0]} runs in {key[1]}; start it first")


def _query(request: Request) -> dict[str, Any]:
    return {name.lower(): value for name, value in request.query.items()}


def _language(fields: dict[str, Any]) -> str:
    return programs.language(_text(fields, "languageId"))


def _text(fields: dict[str, Any], name: str) -> str:
    text = required_text(fields, name)
    if len(text) > _MAX_TEXT or "\0" in text:
        raise InvalidBody(f"{name} is longer than {_MAX_TEXT} characters or holds a NUL character")
    return text


def _position(value: Any) -> dict[str, int]:
    if not isinstance(value, dict):
        raise InvalidBody("position is required: {line, character}")
    return {name: _number(value.get(name), f"position.{name}", 0) for name in ("line", "character")}


def _context(value: Any) -> dict[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise InvalidBody("context must be an object")
    made: dict[str, Any] = {"triggerKind": _number(value.get("triggerKind"), "context.triggerKind", 1)}
    character = value.get("triggerCharacter")
    if character is not None:
        if not isinstance(character, str) or len(character) > _MAX_TEXT:
            raise InvalidBody("context.triggerCharacter must be a short string")
        made["triggerCharacter"] = character
    return made


def _number(value: Any, name: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _MAX_NUMBER:
        raise InvalidBody(f"{name} must be a whole number from {least} on")
    return value
