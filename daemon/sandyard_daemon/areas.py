"""The parts of the toolbox that are loaded by their first request: a sandbox pays only for what is used in it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from sandyard_daemon.children import Children
from sandyard_daemon.environment import Environment
from sandyard_daemon.execution import Executions
from sandyard_daemon.http.messages import Answer, Handler, Request
from sandyard_daemon.state import StateDirectory
from sandyard_daemon.wire.operations import INTERNAL, Operation


@dataclass(frozen=True, slots=True)
class Context:
    """What an area may use of the daemon."""

    environment: Environment
    children: Children
    state: StateDirectory
    executions: Executions


class Area(Protocol):
    """One part of the toolbox, with whatever it keeps running."""

    def handlers(self) -> dict[str, Handler]:
        """By operation id: every operation of the area's paths that is marked as implemented."""

    async def close(self) -> None:
        """End what it started, in at the most two seconds. The daemon stops."""


Loader = Callable[[Context], Area]


# The imports stand inside these functions on purpose: each is paid for when a sandbox uses the area, not at its start.
def _git(context: Context) -> Area:
    from sandyard_daemon.git.area import GitArea

    return GitArea(context)


def _lsp(context: Context) -> Area:
    from sandyard_daemon.lsp.area import LspArea

    return LspArea(context)


def _system(context: Context) -> Area:
    from sandyard_daemon.system.area import SystemArea

    return SystemArea(context)


def _code(context: Context) -> Area:
    from sandyard_daemon.code.area import CodeArea

    return CodeArea(context.environment, context.state, context.executions)


def _interpreter(context: Context) -> Area:
    from sandyard_daemon.interpreter.area import InterpreterArea

    return InterpreterArea(context.environment, context.children)


def _terminals(context: Context) -> Area:
    from sandyard_daemon.terminal.routes import TerminalArea

    return TerminalArea(context)


def _gateway(context: Context) -> Area:
    from sandyard_daemon.gateway.routes import GatewayArea

    return GatewayArea(context)


def _files(context: Context) -> Area:
    from sandyard_daemon.files.area import FilesArea

    return FilesArea(context)


LOADERS: dict[str, Loader] = {
    "/_daemon": _gateway,
    "/files": _files,
    "/git": _git,
    "/lsp": _lsp,
    "/port": _system,
    "/process/code-run": _code,
    "/process/interpreter": _interpreter,
    "/process/pty": _terminals,
    "/system": _system,
}
"""Path prefix to area; the longest prefix of whole path parts wins."""


class Areas:
    """Hands requests to their areas, loading each once."""

    def __init__(self, context: Context, loaders: Mapping[str, Loader] = LOADERS) -> None:
        self._context = context
        self._loaders = loaders
        self._loaded: dict[Loader, tuple[Area, dict[str, Handler]]] = {}

    def handler(self, operation: Operation) -> Handler | None:
        """The handler of an operation; `None` where no area has its path."""
        prefixes = [prefix for prefix in self._loaders if (operation.path + "/").startswith(prefix + "/")]
        if not prefixes:
            return None
        loader = self._loaders[max(prefixes, key=len)]

        def handle(request: Request) -> Awaitable[Answer]:
            return self._handlers(loader)[operation.operation_id](request)

        return handle

    def internal(self) -> dict[str, Handler]:
        """By path: the handlers of `wire.operations.INTERNAL`."""
        handlers = {operation.path: self.handler(operation) for operation in INTERNAL}
        return {path: handler for path, handler in handlers.items() if handler is not None}

    def _handlers(self, loader: Loader) -> dict[str, Handler]:
        if loader not in self._loaded:
            area = loader(self._context)
            self._loaded[loader] = (area, area.handlers())
        return self._loaded[loader][1]

    async def close(self) -> None:
        """End what the loaded areas keep running, the last one first."""
        while self._loaded:
            _, (area, _) = self._loaded.popitem()
            await area.close()
