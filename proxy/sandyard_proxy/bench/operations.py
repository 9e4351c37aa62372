"""Which operation a request is, of the API's or the toolbox's description. Loaded when somebody asks."""

import difflib
from functools import cache
from urllib.parse import unquote

import msgspec

from sandyard_api.coverage.matching import OperationTable
from sandyard_api.coverage.operations import OPERATIONS as API_OPERATIONS
from sandyard_api.coverage.operations import Operation
from sandyard_daemon.wire.operations import OPERATIONS as TOOLBOX_OPERATIONS
from sandyard_proxy.asgi import Scope, raw_path
from sandyard_proxy.destinations import find_destination

API = "/api"
CREATE = "createSandbox"
SANDBOX_PARAMETERS = frozenset({"{sandboxIdOrName}", "{sandboxId}"})


class Meant(msgspec.Struct, frozen=True):
    """What a request is for."""

    operation: str | None
    sandbox_key: str | None
    """Id, name or preview token."""
    is_toolbox: bool


@cache
def _tables() -> tuple[OperationTable, OperationTable]:
    toolbox = [Operation(one.method, one.path, one.operation_id) for one in TOOLBOX_OPERATIONS]
    return OperationTable(API_OPERATIONS), OperationTable(toolbox)


@cache
def known() -> dict[str, bool]:
    """Every operation id, and whether this version has it."""
    api = {one.id: one.is_implemented for one in API_OPERATIONS}
    return api | {one.operation_id: one.implemented for one in TOOLBOX_OPERATIONS}


def problem_of(operation: str) -> str | None:
    """Why a rule cannot name it; `None` when it can."""
    if operation in known():
        return None
    near = difflib.get_close_matches(operation, known(), n=3)
    return f"no operation is called {operation!r}" + (f"; there is {', '.join(near)}" if near else "")


def meant(scope: Scope) -> Meant:
    """What the request is for, from its line alone."""
    api, toolbox = _tables()
    method = scope.get("method", "GET")
    destination = find_destination(scope)
    if destination is not None:
        found = toolbox.find(method, destination.path.decode("latin-1")) if destination.is_toolbox else None
        return Meant(found.id if found else None, destination.key, destination.is_toolbox)
    path = raw_path(scope).decode("latin-1")
    if not path.startswith(f"{API}/"):
        return Meant(None, None, False)
    found = api.find(method, path.removeprefix(API))
    return Meant(found.id if found else None, _sandbox_key(found, path), False)


def _sandbox_key(operation: Operation | None, path: str) -> str | None:
    if operation is None:
        return None
    given = [part for part in path.removeprefix(API).split("/") if part]
    template = [part for part in operation.path.split("/") if part]
    for wanted, part in zip(template, given, strict=True):
        if wanted in SANDBOX_PARAMETERS:
            return unquote(part)
    return None
