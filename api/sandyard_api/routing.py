"""From the slices' handlers to one router."""

import inspect
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, Self

from litestar import Litestar, Response, Router
from litestar.di import Provide
from litestar.handlers import HTTPRouteHandler
from litestar.plugins import PluginProtocol
from litestar.plugins.core import MsgspecDIPlugin
from litestar.utils import join_paths

from sandyard_api.access import AnyRequest, Guard
from sandyard_api.asgi import App
from sandyard_api.problems import Problems


@dataclass(frozen=True, slots=True)
class Slice:
    """Handlers below one path.

    In place of Litestar's own `Router`, which is built when it is imported and copied to the depth of every handler
    when it is used: a twentieth of a start.
    """

    path: str
    handlers: Sequence[HTTPRouteHandler]
    dependencies: Mapping[str, Provide] = field(default_factory=dict)

    def placed(self, given: Mapping[str, Provide]) -> Iterator[HTTPRouteHandler]:
        """Each handler at its whole path, with what it asks for of `given` and of the slice's own dependencies."""
        for handler in self.handlers:
            own: Mapping[str, Any] = handler.dependencies or {}
            needed = _needed(handler, {**given, **self.dependencies, **own})
            placed = copy(handler)  # with its signature, which is parsed once, however many routers there are
            placed.paths = {join_paths([self.path, path]) for path in handler.paths}
            placed.dependencies = needed
            yield placed


def build_router(
    slices: Sequence[Slice],
    given: Mapping[str, Provide],
    problems: Problems,
    *,
    guard: Guard,
    max_body_bytes: int,
) -> App:
    """The router of these slices; `given` is what every handler may ask for, by the name of its argument.

    Raises `ValueError` where two handlers are for the same: the router would take the first, and say nothing.
    """
    handlers = [handler for each in slices for handler in each.placed(given)]
    places = Counter(f"{method} {path}" for each in handlers for path in each.paths for method in each.http_methods)
    if more := [place for place, count in places.items() if count > 1]:
        raise ValueError(f"more than one handler for {', '.join(more)}")
    router: Any = _Router(
        route_handlers=[_Routes("/", route_handlers=[_options(handlers), *handlers])],
        guards=[guard],
        exception_handlers={Exception: problems.handle},
        request_max_body_size=max_body_bytes,
        openapi_config=None,
        logging_config=None,
    )
    app: App = router
    return app


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
