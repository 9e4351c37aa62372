"""Logs over HTTP: in the form each SDK version expects, as pages, and as frames for the runner and the proxy."""

import dataclasses
from collections.abc import AsyncIterator, Iterator

from sandyard_daemon.errors import BadRequest
from sandyard_daemon.http.messages import Answer, Handler, Request, Response, StreamResponse, json_response
from sandyard_daemon.routes.pages import DEFAULT_LIMIT, MAX_LIMIT, page
from sandyard_daemon.routes.text import log_body
from sandyard_daemon.sessions.log import CommandLog
from sandyard_daemon.sessions.registry import ENTRYPOINT, ENTRYPOINT_COMMAND, Sessions
from sandyard_daemon.wire import LogFrame
from sandyard_daemon.wire.versions import LogFormat

_PAGE_KEYS = frozenset({"cursor", "limit", "encoding"})
_ENCODINGS = frozenset({"utf-8", "base64"})


class LogRoutes:
    """Reads of one command's log; following it over a WebSocket is the proxy's."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def handlers(self) -> dict[str, Handler]:
        """By operation id."""
        return {"GetSessionCommandLogs": self.command_logs, "GetEntrypointLogs": self.entrypoint_logs}

    async def command_logs(self, request: Request) -> Answer:
        """The log as it is now."""
        session_id, command_id = request.parameters
        log = self._log(session_id, command_id)
        form = request.caller.entrypoint_log_format if session_id == ENTRYPOINT else request.caller.log_format
        return self._answer(request, log, form)

    async def entrypoint_logs(self, request: Request) -> Answer:
        """The entrypoint's log as it is now."""
        return self._answer(request, self._log(ENTRYPOINT, ENTRYPOINT_COMMAND), request.caller.entrypoint_log_format)

    async def frames(self, request: Request) -> Answer:
        """`/_daemon/logs/{session}/{command}`."""
        log = self._log(*request.parameters)
        query = request.query
        if "head" in query:
            return json_response(200, dataclasses.asdict(log.head))
        cursor = _number(query.get("cursor", "0"), "cursor")
        if query.get("follow") == "true":
            return StreamResponse(200, _encoded_as_they_come(log.follow(cursor)), "application/octet-stream")
        stop = log.size
        if "limit" in query:
            stop = min(stop, cursor + _number(query["limit"], "limit"))
        return StreamResponse(200, _encoded(log.batches(cursor, stop)), "application/octet-stream")

    def _log(self, session_id: str, command_id: str) -> CommandLog:
        return self._sessions.get(session_id).command(command_id).log

    def _answer(self, request: Request, log: CommandLog, form: LogFormat) -> Answer:
        if _PAGE_KEYS & request.query.keys():
            return _page_answer(request, log)
        content_type, body = log_body(log, form)
        return StreamResponse(200, body, content_type, (("x-content-type-options", "nosniff"),))


def _page_answer(request: Request, log: CommandLog) -> Response:
    query = request.query
    encoding = query.get("encoding", "utf-8")
    if encoding not in _ENCODINGS:
        raise BadRequest("encoding must be utf-8 or base64")
    limit = _number(query.get("limit", str(DEFAULT_LIMIT)), "limit")
    if not 0 < limit <= MAX_LIMIT:
        raise BadRequest(f"limit must be between 1 and {MAX_LIMIT}")
    cursor = _number(query.get("cursor", "0"), "cursor")
    return json_response(200, page(log, cursor, limit, as_base64=encoding == "base64"))


def _number(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise BadRequest(f"{name} must be a number of bytes")
    return int(text)


async def _encoded(batches: Iterator[list[LogFrame]]) -> AsyncIterator[bytes]:
    for batch in batches:
        yield b"".join([frame.encode() for frame in batch])


async def _encoded_as_they_come(batches: AsyncIterator[list[LogFrame]]) -> AsyncIterator[bytes]:
    async for batch in batches:
        yield b"".join([frame.encode() for frame in batch])
