"""One running language server for one project: its process, its documents, its questions."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from typing import Any

from sandyard_daemon.children import Children
from sandyard_daemon.environment import Environment
from sandyard_daemon.errors import BadRequest, DaemonError, Internal, RequestTimeout, ServerNotInitialized
from sandyard_daemon.linux import set_descriptor_limit
from sandyard_daemon.lsp import places
from sandyard_daemon.lsp.programs import Program, kind_of_document
from sandyard_daemon.lsp.rpc import Connection
from sandyard_daemon.lsp.symbols import completions, symbols
from sandyard_daemon.sessions.capture import Capture, reading

START_SECONDS = 40.0
ANSWER_SECONDS = 30.0
INDEX_SECONDS = 15.0
"""How long after its start an empty answer about the whole project may mean that it was not read yet."""
MAX_DOCUMENTS = 1000
STOP_SECONDS = 1.0
"""For leaving when asked, before it is killed."""

_ASK_AGAIN_SECONDS = 0.15
_KEPT_ERRORS = 2000
_CAPABILITIES: dict[str, Any] = {
    "workspace": {"configuration": True, "workspaceFolders": True, "symbol": {"dynamicRegistration": True}},
    "textDocument": {
        "synchronization": {"dynamicRegistration": True},
        "completion": {
            "completionItem": {"snippetSupport": True, "documentationFormat": ["markdown", "plaintext"]},
            "contextSupport": True,
        },
        "documentSymbol": {"hierarchicalDocumentSymbolSupport": True},
    },
    "window": {"workDoneProgress": True},
}


class LanguageServer:
    """Made by `start`; over when `why_ended` is set."""

    def __init__(self, language_id: str, project: str, program: Program) -> None:
        self.language_id = language_id
        self.project = project
        self.program = program
        self.why_ended: str | None = None
        self.documents: dict[str, _Document] = {}
        """Open ones, by path."""
        self._capabilities: dict[str, Any] = {}
        self._errors = bytearray()
        self._telling = asyncio.Lock()
        self._knows_files = asyncio.Event()
        self._started_at = 0.0

    @classmethod
    async def start(
        cls, language_id: str, project: str, found: tuple[Program, str], environment: Environment, children: Children
    ) -> "LanguageServer":
        """Start it and greet it. Raises `Internal`, `RequestTimeout`; nothing is left running then."""
        server = cls(language_id, project, found[0])
        server._launch(found[1], environment, children)
        try:
            await server._connection.open()
            await server._greet()
        except BaseException as error:
            await server.kill()
            if isinstance(error, DaemonError):
                raise Internal(f"cannot start {found[0].name}: {error.message}{server._last_errors()}") from error
            raise
        return server

    async def open(self, path: str) -> None:
        """Tell its text; again, tell its present text. Raises `BadRequest`."""
        async with self._turn():
            await self._tell(path)
            self.documents[path].is_held = True

    async def shut(self, path: str) -> None:
        """Forget it; one that is not open is forgotten already."""
        async with self._turn():
            if path in self.documents:
                self.documents[path].is_held = False
                await self._let_go(path)

    async def document_symbols(self, path: str) -> list[dict[str, Any]]:
        """What a document defines. Raises `DaemonError`."""
        async with self._opened(path) as uri:
            answer = await self._ask("textDocument/documentSymbol", {"textDocument": {"uri": uri}})
            return symbols(answer, uri)

    async def completions(self, path: str, position: dict[str, int], context: dict[str, Any] | None) -> dict[str, Any]:
        """What may stand at a position. Raises `DaemonError`."""
        async with self._opened(path) as uri:
            params: dict[str, Any] = {"textDocument": {"uri": uri}, "position": position}
            if context is not None:
                params["context"] = context
            return completions(await self._ask("textDocument/completion", params))

    async def workspace_symbols(self, query: str) -> list[dict[str, Any]]:
        """What the project defines. An empty answer is asked for again while the server still reads the project."""
        if not self._capabilities.get("workspaceSymbolProvider"):
            raise BadRequest(f"{self.program.name} knows no workspace symbols; install another language server")
        if self.program.needs_document and not self.documents:
            return await self._symbols_by_any_document(query)
        return await self._symbols_when_read(query)

    async def stop(self) -> None:
        """Ask it to leave, then make it."""
        with contextlib.suppress(DaemonError):
            await self._connection.request("shutdown", None, STOP_SECONDS)
            await self._connection.notify("exit", None, STOP_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await asyncio.shield(self._exited)
        await self.kill()

    async def kill(self) -> None:
        """End the process and whatever it started; may be repeated."""
        self._kill_group()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await asyncio.shield(self._exited)
        await self._connection.close()
        self._stderr.close()

    def _launch(self, path: str, environment: Environment, children: Children) -> None:
        """Raises `Internal`."""
        ours, theirs = socket.socketpair()
        self._stderr = Capture(reading(self._keep_error), lambda: None)
        try:
            process = subprocess.Popen(  # noqa: S603  the sandbox's own program
                [path, *self.program.arguments],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=self._stderr.writer,
                cwd=self.project,
                env=environment.variables,
                process_group=0,
            )
        except (OSError, ValueError) as error:
            ours.close()
            self._stderr.close()
            raise Internal(f"cannot start {path}: {error}") from error
        finally:
            theirs.close()
            self._stderr.release()
        self._pid = process.pid
        self._exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        children.watch(process.pid, self._process_ended)
        process.returncode = 0  # `Children` waits for it; Popen must not try
        with contextlib.suppress(ProcessLookupError, PermissionError):
            set_descriptor_limit(environment.descriptor_limits, process.pid)
        self._connection = Connection(ours, answers=self._answers(), heard=self._heard, ended=self._conversation_ended)

    async def _greet(self) -> None:
        uri = places.as_uri(self.project)
        params = {
            "processId": os.getpid(),
            "clientInfo": {"name": "sandyard"},
            "rootUri": uri,
            "rootPath": self.project,
            "workspaceFolders": self._folders(),
            "capabilities": _CAPABILITIES,
            "initializationOptions": dict(self.program.options),
        }
        answer = await self._connection.request("initialize", params, START_SECONDS)
        capabilities = answer.get("capabilities") if isinstance(answer, dict) else None
        self._capabilities = capabilities if isinstance(capabilities, dict) else {}
        await self._notify("initialized", {})
        self._started_at = time.monotonic()

    def _folders(self) -> list[dict[str, str]]:
        return [{"uri": places.as_uri(self.project), "name": os.path.basename(self.project) or "/"}]

    def _answers(self) -> dict[str, Any]:
        """What the server may ask of us. Settings: none, for each item it asks about."""
        nothing = ("client/registerCapability", "client/unregisterCapability", "window/workDoneProgress/create")
        refreshes = ("codeLens", "diagnostic", "foldingRange", "inlayHint", "inlineValue", "semanticTokens")
        return {
            "workspace/configuration": _no_settings,
            "workspace/workspaceFolders": lambda params: self._folders(),
            "workspace/applyEdit": lambda params: {"applied": False},
            "window/showMessageRequest": lambda params: None,
            "window/showDocument": lambda params: {"success": False},
            **dict.fromkeys(nothing, lambda params: None),
            **{f"workspace/{name}/refresh": lambda params: None for name in refreshes},
        }

    def _heard(self, method: str, params: Any) -> None:
        if method == "window/logMessage" and self.program.read_all is not None and isinstance(params, dict):
            message = params.get("message")
            if isinstance(message, str) and self.program.read_all.match(message):
                self._knows_files.set()

    async def _symbols_when_read(self, query: str) -> list[dict[str, Any]]:
        deadline = self._started_at + INDEX_SECONDS
        while True:
            last = self._knows_files.is_set() or time.monotonic() >= deadline
            found = symbols(await self._ask("workspace/symbol", {"query": query}), "")
            if found or last:
                return found
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ASK_AGAIN_SECONDS):
                    await self._knows_files.wait()

    async def _symbols_by_any_document(self, query: str) -> list[dict[str, Any]]:
        """Open some file for the time of the question: that makes the server read the project."""
        path = await asyncio.to_thread(places.first_source, self.project, self.program.sources)
        if path is None:
            return []
        async with self._opened(path):
            return symbols(await self._ask("workspace/symbol", {"query": query}), "")

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Documents are read and told by one request at a time. Raises `RequestTimeout`."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._telling.acquire()
        except TimeoutError as error:
            raise RequestTimeout("the language server is busy with other documents") from error
        try:
            yield
        finally:
            self._telling.release()

    @contextlib.asynccontextmanager
    async def _opened(self, path: str) -> AsyncIterator[str]:
        """Its URI, with the server knowing its present text. One that no client opened is closed afterwards."""
        async with self._turn():
            await self._tell(path, if_changed=True)
            document = self.documents[path]
            document.users += 1
        try:
            yield places.as_uri(path)
        finally:
            document.users -= 1
            if self.why_ended is None:
                with contextlib.suppress(DaemonError):
                    async with self._turn():
                        await self._let_go(path)

    async def _tell(self, path: str, *, if_changed: bool = False) -> None:
        text, mark = await asyncio.to_thread(places.read, path)
        uri, known = places.as_uri(path), self.documents.get(path)
        if known is None:
            if len(self.documents) >= MAX_DOCUMENTS:
                raise BadRequest(f"{MAX_DOCUMENTS} documents are open already; close some")
            self.documents[path] = _Document(mark)
            item = {"uri": uri, "languageId": kind_of_document(self.language_id, path), "version": 1, "text": text}
            await self._notify("textDocument/didOpen", {"textDocument": item})
        elif not if_changed or known.mark != mark:
            known.version, known.mark = known.version + 1, mark
            params = {"textDocument": {"uri": uri, "version": known.version}, "contentChanges": [{"text": text}]}
            await self._notify("textDocument/didChange", params)

    async def _let_go(self, path: str) -> None:
        document = self.documents.get(path)
        if document is not None and not document.is_held and not document.users:
            del self.documents[path]
            await self._notify("textDocument/didClose", {"textDocument": {"uri": places.as_uri(path)}})

    async def _ask(self, method: str, params: Any) -> Any:
        self._check()
        return await self._connection.request(method, params, ANSWER_SECONDS)

    async def _notify(self, method: str, params: Any) -> None:
        self._check()
        await self._connection.notify(method, params, ANSWER_SECONDS)

    def _check(self) -> None:
        if self.why_ended is not None:
            raise ServerNotInitialized(f"{self.program.name} ended: {self.why_ended}; start it again")

    def _keep_error(self, data: memoryview) -> None:
        self._errors = (self._errors + bytes(data[-_KEPT_ERRORS:]))[-_KEPT_ERRORS:]

    def _last_errors(self) -> str:
        text = self._errors.decode("utf-8", "replace").strip()
        return f"; it wrote:\n{text}" if text else ""

    def _process_ended(self, code: int) -> None:
        self._stderr.drain()
        before = f"{self.why_ended}, " if self.why_ended else ""
        self.why_ended = f"{before}exit code {code}{self._last_errors()}"
        self._kill_group()
        self._exited.set_result(code)

    def _conversation_ended(self, reason: str) -> None:
        self.why_ended = self.why_ended or reason
        if not self._exited.done():
            # Not at once: it may be on its way out, and its own exit code says more than our signal.
            asyncio.get_running_loop().call_later(STOP_SECONDS, self._kill_group)

    def _kill_group(self) -> None:
        """The server and its helpers. Once it is reaped its number may be another's."""
        if self._exited.done():
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, signal.SIGKILL)


class _Document:
    """What the server was told of a file last, and who needs it open."""

    def __init__(self, mark: tuple[int, int]) -> None:
        self.version = 1
        self.mark = mark
        self.is_held = False
        """A client opened it."""
        self.users = 0
        """Questions under way."""


def _no_settings(params: Any) -> list[None]:
    items = params.get("items") if isinstance(params, dict) else None
    return [None] * len(items) if isinstance(items, list) else []
