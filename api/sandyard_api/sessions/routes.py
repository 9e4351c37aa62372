"""Records of sessions under `/_sandyard/`, also of sandboxes that are stopped or destroyed."""

from urllib.parse import unquote

from litestar import get
from litestar.di import NamedDependency as Given
from litestar.params import FromPath

from sandyard_api.jobs.wire import KeyGrant
from sandyard_api.routing import Slice
from sandyard_api.sandboxes.service import Sandboxes
from sandyard_api.sessions.schemas import (
    CommandView,
    SessionDetail,
    SessionList,
    command_view,
    session_view,
)
from sandyard_api.sessions.service import SessionRecords


@get("/")
async def list_sessions(
    sandboxes: Given[Sandboxes],
    sessions: Given[SessionRecords],
    grant: Given[KeyGrant],
    key: Given[str],
) -> SessionList:
    """Every session of a sandbox."""
    sandbox = await sandboxes.get(grant.organization_id, key)
    return SessionList([session_view(row) for row in await sessions.sessions(sandbox.id)])


@get("/{session_ref:str}")
async def read_session(
    sandboxes: Given[Sandboxes],
    sessions: Given[SessionRecords],
    grant: Given[KeyGrant],
    key: Given[str],
    session_ref: FromPath[str],
) -> SessionDetail:
    """One session with its commands."""
    sandbox = await sandboxes.get(grant.organization_id, key)
    row, commands = await sessions.session(sandbox.id, unquote(session_ref))
    view = session_view(row)
    return SessionDetail(
        view.sandbox_id, view.id, view.created_at, view.ended_at, [command_view(command) for command in commands]
    )


@get("/{session_ref:str}/commands/{command_ref:str}")
async def read_command(
    sandboxes: Given[Sandboxes],
    sessions: Given[SessionRecords],
    grant: Given[KeyGrant],
    key: Given[str],
    session_ref: FromPath[str],
    command_ref: FromPath[str],
) -> CommandView:
    """One command: exit code, times, log size and last lines."""
    sandbox = await sandboxes.get(grant.organization_id, key)
    return command_view(await sessions.command(sandbox.id, unquote(session_ref), unquote(command_ref)))


SLICE = Slice("/_sandyard/sandboxes/{sandbox_ref:str}/sessions", [list_sessions, read_session, read_command])
