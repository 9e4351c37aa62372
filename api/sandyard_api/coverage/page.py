"""`docs/coverage.md`, made from the tables of operations of the API and of the toolbox."""

from collections import Counter
from collections.abc import Iterator

from sandyard_api.coverage.absences import Status, absence_of
from sandyard_api.coverage.operations import OPERATIONS
from sandyard_daemon.wire.operations import OPERATIONS as TOOLBOX_OPERATIONS

_INTRODUCTION = """# Coverage

Every operation of the protocol. *Implemented*: it does what the platform does. *Fixture*: the answer is the same for
everybody here. *501*: not in this version, for the reason given; the answer's body names the operation and the reason.
*Not applicable*: between parts of the original that are not here, or about what cannot be here; it answers 501 as well.
"""


def render() -> str:
    """The whole page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield _INTRODUCTION
    yield from _table(
        "API", [(one.method, f"/api{one.path}", one.id, *_of(one.path, one.status)) for one in OPERATIONS]
    )
    toolbox = [
        (one.method, one.path, one.operation_id, *_of(one.path, Status.IMPLEMENTED if one.implemented else None))
        for one in TOOLBOX_OPERATIONS
    ]
    yield from _table("Toolbox, below `/toolbox/{sandbox id}`", toolbox)


def _of(path: str, status: Status | None) -> tuple[Status, str]:
    """Status and reason; `None` is one that is not answered."""
    if status in (Status.IMPLEMENTED, Status.FIXTURE):
        return status, ""
    absence = absence_of(path)
    return (absence.status, absence.reason) if absence else (Status.REFUSED, "not built yet")


def _table(title: str, rows: list[tuple[str, str, str, Status, str]]) -> Iterator[str]:
    counts = Counter(status for *_, status, _ in rows)
    yield f"## {title}\n"
    yield ", ".join(f"{counts[status]} {status}" for status in Status) + f"; {len(rows)} operations.\n"
    yield "| method | path | operation | status | why |"
    yield "|---|---|---|---|---|"
    for method, path, name, status, reason in rows:
        yield f"| {method} | `{path}` | {name} | {status} | {reason} |"
    yield ""
