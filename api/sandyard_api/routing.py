"""From the slices' handlers to routers."""

import asyncio
import inspect
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from copy import copy
from typing import Any, Self

import msgspec
from litestar import Litestar, Response, Router
from litestar.di import Provide
from litestar.handlers import HTTPRouteHandler
from litestar.plugins import PluginProtocol
from litestar.plugins.core import MsgspecDIPlugin
from litestar.routes import HTTPRoute
from litestar.utils import join_paths

from sandyard.beside import meanwhile
from sandyard_api.access import AnyRequest, Guard
from sandyard_api.asgi import App, Receive, Scope, Send
from sandyard_api.problems import Problems

PAUSE_SECONDS = 0.005
"""Between two routers that are built in quiet: requests come first."""


class Slice(msgspec.Struct, frozen=True):
    """Handlers below one path.

    In place of Litestar's own `Router`, which is built when it is imported and copied to the depth of every handler
    when it is used: a twentieth of a start.
    """

    path: str
    handlers: Sequence[HTTPRouteHandler]
    dependencies: Mapping[str, Provide] = msgspec.field(default_factory=dict)

    def paths(self, handler: HTTPRouteHandler) -> list[str]:
        """The whole paths of one of the handlers."""
        return [join_paths([self.path, path]) for path in handler.paths]

    def placed(self, given: Mapping[str, Provide]) -> Iterator[HTTPRouteHandler]:
        """Each handler at its whole path, with what it asks for of `given` and of the slice's own dependencies."""
        for handler in self.handlers:
            own: Mapping[str, Any] = handler.dependencies or {}
            needed = _needed(handler, {**given, **self.dependencies, **own})
            placed = copy(handler)  # with its signature, which is parsed once, however many routers there are
            placed.paths = set(self.paths(handler))
            placed.dependencies = needed
            yield placed


class Routers:
    """One router for each beginning of the paths, built when the first request for it comes, or in quiet before.

    Building all is a tenth of a start, for which nobody need wait. `build` makes one of the slices that it is given.
    Raises `ValueError` where two handlers are for the same, since a router would take the first and say
    nothing, and for a path that begins with a parameter.
    """

    def __init__(self, slices: Sequence[Slice], build: Callable[[Sequence[Slice]], App]) -> None:
        _refuse_doubles(slices)
        self._build = build
        self._slices: dict[_Beginning, list[Slice]] = {}
        for each in slices:
            handlers: dict[_Beginning, list[HTTPRouteHandler]] = {}
            for handler in each.handlers:
                for beginning in {_beginning(path) for path in each.paths(handler)}:
                    handlers.setdefault(beginning, []).append(handler)
            for beginning, own in handlers.items():
                self._slices.setdefault(beginning, []).append(Slice(each.path, own, each.dependencies))
        if unknown := [part for beginning in self._slices for part in beginning if "{" in part]:
            raise ValueError(f"paths begin with {', '.join(unknown)}")
        self._routers: dict[_Beginning | None, App] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = _beginning(scope["path"])
        beginning = asked if asked in self._slices else None  # one router for all paths that do not exist
        await self._router(beginning)(scope, receive, send)

    @asynccontextmanager
    async def preparing(self) -> AsyncIterator[None]:
        """Build what no request has asked for yet, one after the other while the block lasts."""
        async with meanwhile(self._prepare(), name="routers"):
            yield

    async def _prepare(self) -> None:
        for beginning in self._slices:
            self._router(beginning)
            await asyncio.sleep(PAUSE_SECONDS)

    def _router(self, beginning: "_Beginning | None") -> App:
        router = self._routers.get(beginning)
        if router is None:
            router = self._routers[beginning] = self._build(self._slices[beginning] if beginning is not None else ())
        return router


_Beginning = tuple[str, ...]


def _beginning(path: str) -> _Beginning:
    """The first two parts. Empty ones do not count, as for the router."""
    return tuple([part for part in path.split("/") if part][:2])


def _refuse_doubles(slices: Sequence[Slice]) -> None:
    places = Counter(
        f"{method} {path}"
        for each in slices
        for handler in each.handlers
        for path in each.paths(handler)
        for method in handler.http_methods
    )
    if more := [place for place, count in places.items() if count > 1]:
        raise ValueError(f"more than one handler for {', '.join(more)}")


def build_router(
    slices: Sequence[Slice],
    given: Mapping[str, Provide],
    problems: Problems,
    *,
    guard: Guard,
    max_body_bytes: int,
) -> App:
    """The router of these slices; `given` is what every handler may ask for, by the name of its argument.

    Raises `ValueError` where two handlers are for the same.
    """
    _refuse_doubles(slices)
    handlers = [handler for each in slices for handler in each.placed(given)]
    router: Any = _Router(
        route_handlers=[_Routes("/", route_handlers=[_options(handlers), *handlers])] if handlers else [],
        guards=[guard],
        exception_handlers={Exception: problems.handle},
        request_max_body_size=max_body_bytes,
        openapi_config=None,
        logging_config=None,
    )
    _resolve_in_turn(router)
    app: App = router
    return app


def _resolve_in_turn(router: Litestar) -> None:
    """What a handler asks for is made by functions that never wait: a group of tasks for them would be a tenth of a
    request's time."""
    for route in router.routes:
        if isinstance(route, HTTPRoute):
            for _, model in route.route_handler_map.values():
                model.dependency_batches = [{one} for batch in model.dependency_batches for one in batch]


class _Router(Litestar):
    """Without the plugins for types that no handler here takes or gives.

    Pydantic's imports pydantic wherever it is, which is wherever an SDK is: a twentieth of the start, and 8 MB.
    """

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        return [*plugins, MsgspecDIPlugin()]


class _Routes(Router):
    """All routes, registered in one go. Only ever used in one place, so that the usual copy of it is not needed."""

    def __deepcopy__(self, _memo: Any) -> Self:
        return self


def _options(handlers: Sequence[HTTPRouteHandler]) -> HTTPRouteHandler:
    """One handler of OPTIONS for all paths. Without it the router would make one for each, half of all it builds."""
    paths = sorted({path for handler in handlers for path in handler.paths})
    return HTTPRouteHandler(paths, http_method="OPTIONS", sync_to_thread=False)(allowed_methods)


def allowed_methods(request: AnyRequest) -> Response[None]:
    """What the path takes. Browsers that ask before they send (CORS) have their answer before the router."""
    path = request.scope["path_template"]
    methods = next(route.methods for route in request.app.routes if route.path_format == path)
    return Response(None, status_code=204, headers={"Allow": ", ".join(sorted(methods))})


def _needed(handler: HTTPRouteHandler, dependencies: Mapping[str, Provide]) -> dict[str, Provide]:
    """Those of the dependencies that a handler asks for, and what these ask for in turn."""
    needed: dict[str, Provide] = {}
    asked = list(handler.parsed_fn_signature.parameters)
    while asked:
        name = asked.pop()
        if name in dependencies and name not in needed:
            needed[name] = dependencies[name]
            asked.extend(inspect.signature(needed[name].dependency).parameters)
    return needed
