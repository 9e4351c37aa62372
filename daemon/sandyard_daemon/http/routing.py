"""From method and path to a handler."""

from typing import NamedTuple

from sandyard_daemon.errors import NotFound, WrongMethod
from sandyard_daemon.http.messages import Handler

REST = "{*}"
"""As the last part of a path: one or more parts, kept as they are."""

_PARAMETER = "{}"


class Found(NamedTuple):
    """What serves a request."""

    handler: Handler
    parameters: list[str]
    """In order."""
    path: str
    """The form that matched, as it was added."""


class _Node:
    __slots__ = ("children", "handlers", "path")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.handlers: dict[str, Handler] = {}
        self.path = ""


class Router:
    """A tree of path parts; a literal part wins over a parameter."""

    def __init__(self) -> None:
        self._root = _Node()

    def add(self, method: str, path: str, handler: Handler) -> None:
        """`path` like `/process/session/{id}`; method `*` takes all."""
        node = self._root
        for part in path.strip("/").split("/"):
            name = part if part == REST or not part.startswith("{") else _PARAMETER
            node = node.children.setdefault(name, _Node())
        node.handlers[method] = handler
        node.path = path

    def find(self, method: str, segments: list[str]) -> Found:
        """Raises `NotFound`, `WrongMethod`."""
        matches = list(_walk(self._root, segments, 0, []))
        for node, parameters in matches:
            handler = node.handlers.get(method) or node.handlers.get("*")
            if handler is not None:
                return Found(handler, parameters, node.path)
        path = "/" + "/".join(segments)
        if matches:
            allowed = ", ".join(sorted({name for node, _ in matches for name in node.handlers}))
            raise WrongMethod(f"{method} is not allowed for {path}; it takes {allowed}")
        raise NotFound(f"no such route: {method} {path}")


def _walk(node: _Node, segments: list[str], at: int, parameters: list[str]) -> list[tuple[_Node, list[str]]]:
    if at == len(segments):
        return [(node, parameters)] if node.handlers else []
    found: list[tuple[_Node, list[str]]] = []
    part = segments[at]
    if (literal := node.children.get(part)) is not None:
        found += _walk(literal, segments, at + 1, parameters)
    if part and (any_part := node.children.get(_PARAMETER)) is not None:
        found += _walk(any_part, segments, at + 1, [*parameters, part])
    if (rest := node.children.get(REST)) is not None:
        found.append((rest, parameters))
    return found
