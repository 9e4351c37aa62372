"""`/_daemon/*`: what the runner and the proxy ask beside the public API."""

import os
from pathlib import Path

from sandyard_daemon import VERSION
from sandyard_daemon.errors import BadRequest
from sandyard_daemon.events import EventLog
from sandyard_daemon.http.messages import Answer, Handler, Request, StreamResponse, json_response
from sandyard_daemon.routes.logs import LogRoutes
from sandyard_daemon.sessions.registry import Sessions

MOUNTINFO = Path("/proc/self/mountinfo")


class InternalRoutes:
    """Health, events and log frames."""

    def __init__(self, sessions: Sessions, events: EventLog, logs: LogRoutes) -> None:
        self._sessions = sessions
        self._events = events
        self._logs = logs

    def handlers(self) -> dict[str, Handler]:
        """By path."""
        return {
            "/_daemon/health": self.health,
            "/_daemon/events": self.events,
            "/_daemon/mounts": self.mounts,
            "/_daemon/logs/{session}/{command}": self._logs.frames,
        }

    async def health(self, request: Request) -> Answer:
        """Alive, how far events have come, and how much there is of everything."""
        facts = {"version": VERSION, "pid": os.getpid(), "last_event": self._events.last_number}
        return json_response(200, {**facts, **self._sessions.counts()})

    async def mounts(self, request: Request) -> Answer:
        """Device and root of every mount of this sandbox, as the kernel has them."""
        return json_response(200, {"mounts": _mounts()})

    async def events(self, request: Request) -> Answer:
        """Events after a number, then live."""
        after = request.query.get("after", "0")
        if not (after.isascii() and after.isdigit()):
            raise BadRequest("after must be the number of an event")
        return StreamResponse(200, self._events.lines(int(after)), "application/x-ndjson")


def _mounts() -> list[list[str]]:
    lines = MOUNTINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.split(" ")[2:4] for line in lines]
