"""`docs/coverage.md`, made from the tables of operations of the API and of the toolbox."""

from collections.abc import Iterator

from sandyard_api.coverage.operations import OPERATIONS
from sandyard_daemon.wire.operations import OPERATIONS as TOOLBOX_OPERATIONS


def render() -> str:
    """The whole page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Coverage\n"
    yield "Every operation of the protocol. What is not there yet answers 501 with a body that names the operation."
    api = [(one.method, f"/api{one.path}", one.id, one.is_implemented) for one in OPERATIONS]
    yield from _table("API", api)
    toolbox = [(one.method, one.path, one.operation_id, one.implemented) for one in TOOLBOX_OPERATIONS]
    yield from _table("Toolbox, below `/toolbox/{sandbox id}`", toolbox)


def _table(title: str, rows: list[tuple[str, str, str, bool]]) -> Iterator[str]:
    done = sum(implemented for *_, implemented in rows)
    yield f"\n## {title}\n"
    yield f"{done} of {len(rows)} operations.\n"
    yield "| method | path | operation | status |"
    yield "|---|---|---|---|"
    for method, path, name, implemented in rows:
        yield f"| {method} | `{path}` | {name} | {'works' if implemented else '501'} |"
