"""Sessions over HTTP: create, list, get, delete, exec, command, input."""

import asyncio
import json
from typing import Any

from sandyard_daemon.errors import BadRequest, DaemonError, InvalidBody, SessionEnded, envelope
from sandyard_daemon.http.messages import Answer, Handler, Request, Response, StreamResponse, json_response
from sandyard_daemon.routes.early import answer_in_time
from sandyard_daemon.routes.fields import flag, optional_text, required_text
from sandyard_daemon.routes.text import json_execution
from sandyard_daemon.sessions.command import Command
from sandyard_daemon.sessions.registry import ENTRYPOINT, Sessions
from sandyard_daemon.sessions.session import Session


class SessionRoutes:
    """Thin: parse, one call, answer."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def handlers(self) -> dict[str, Handler]:
        """By operation id."""
        return {
            "CreateSession": self.create,
            "ListSessions": self.list_all,
            "GetSession": self.get,
            "GetEntrypointSession": self.get_entrypoint,
            "DeleteSession": self.delete,
            "SessionExecuteCommand": self.execute,
            "GetSessionCommand": self.get_command,
            "SendInput": self.send_input,
        }

    async def create(self, request: Request) -> Response:
        """201 without a body."""
        body = await request.json_object()
        self._sessions.create(body.get("sessionid"), at_home=request.caller.session_starts_at_home)
        return Response(201)

    async def list_all(self, request: Request) -> Response:
        """All but the entrypoint's."""
        return json_response(200, [_session(session) for session in self._sessions.listed()])

    async def get(self, request: Request) -> Response:
        """One session with its commands."""
        return json_response(200, _session(self._sessions.get(request.parameters[0])))

    async def get_entrypoint(self, request: Request) -> Response:
        """The entrypoint's session; it always exists."""
        return json_response(200, _session(self._sessions.get(ENTRYPOINT)))

    async def delete(self, request: Request) -> Response:
        """204 when everything in it is gone."""
        # Shielded: half a deletion because the client left would leave processes nobody can name.
        await asyncio.shield(asyncio.ensure_future(self._sessions.delete(request.parameters[0])))
        return Response(204)

    async def execute(self, request: Request) -> Answer:
        """Synchronous: 200 with output and exit code. Asynchronous: 202 with the id."""
        (session_id,) = request.parameters
        self._sessions.writable(session_id)
        body = await request.json_object()
        is_async = flag(body, "runAsync") or flag(body, "async")
        text = required_text(body, "command")
        if "\0" in text:
            raise BadRequest("command holds a NUL character")
        echo = not flag(body, "suppressInputEcho")
        command = self._sessions.execute(session_id, text, is_async=is_async, echo=echo)
        if is_async:
            return json_response(202, {"cmdId": command.command_id})
        if request.caller.needs_early_bytes:
            return await answer_in_time(_result(request, command), lambda error: _late_error(request, error))
        return await _result(request, command)

    async def get_command(self, request: Request) -> Response:
        """One command; `exitCode` is absent while it runs."""
        session_id, command_id = request.parameters
        return json_response(200, _command(self._sessions.get(session_id).command(command_id)))

    async def send_input(self, request: Request) -> Response:
        """Append to a command's standard input; `?raw=true` sends exactly the data."""
        session_id, command_id = request.parameters
        command = self._sessions.writable(session_id).command(command_id)
        data = optional_text(await request.json_object(), "data")
        if not data:
            raise InvalidBody("data is required and must be a non-empty string")
        command.write_input(data, raw=request.query.get("raw") == "true")
        return Response(204)


async def _result(request: Request, command: Command) -> StreamResponse:
    """Wait for the command, whatever it takes; a client that goes away cancels only the waiting."""
    await command.wait()
    if command.problem is not None:
        raise command.problem
    caller = request.caller
    body = json_execution(
        command.command_id,
        command.log,
        has_markers=caller.exec_output_has_markers,
        has_streams=caller.exec_has_streams,
    )
    return StreamResponse(200, body, "application/json")


def _late_error(request: Request, error: BaseException) -> bytes:
    problem = error if isinstance(error, DaemonError) else SessionEnded(str(error))
    return json.dumps(envelope(problem, method=request.method, path=request.raw_path)).encode()


def _session(session: Session) -> dict[str, Any]:
    return {
        "sessionId": session.session_id,
        "commands": [_command(command) for command in session.commands.values()],
    }


def _command(command: Command) -> dict[str, Any]:
    shown: dict[str, Any] = {"id": command.command_id, "command": command.text}
    if command.exit_code is not None:
        shown["exitCode"] = command.exit_code
    return shown
