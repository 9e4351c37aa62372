"""Finding the operation that a request means, among all that the protocol has."""

from collections import defaultdict
from collections.abc import Iterable

from sandyard_api.coverage.operations import Operation


class OperationTable:
    """Matches by segments; a literal one wins over a parameter."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._by_shape: defaultdict[tuple[str, int], list[tuple[list[str], Operation]]] = defaultdict(list)
        for operation in operations:
            parts = _split(operation.path)
            self._by_shape[operation.method, len(parts)].append((parts, operation))
        for entries in self._by_shape.values():
            entries.sort(key=lambda entry: [_is_parameter(part) for part in entry[0]])

    def find(self, method: str, path: str) -> Operation | None:
        """The operation for a path below `/api`, still percent-encoded."""
        parts = _split(path)
        for template, operation in self._by_shape.get((method, len(parts)), ()):
            if all(_is_parameter(wanted) or wanted == given for wanted, given in zip(template, parts, strict=True)):
                return operation
        return None


def _split(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


def _is_parameter(part: str) -> bool:
    return part.startswith("{")
