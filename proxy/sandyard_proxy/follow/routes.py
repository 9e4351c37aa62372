"""The log routes that the proxy serves itself: followed logs as WebSocket, text or Server-Sent Events."""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any
from urllib.parse import unquote

import msgspec

from sandyard.bus import Bus
from sandyard_api.jobs.wire import Route
from sandyard_daemon.wire import LogFrame
from sandyard_daemon.wire.versions import SUBPROTOCOL_PREFIX, Caller
from sandyard_proxy.asgi import Receive, Scope, Send, answer, text_header
from sandyard_proxy.destinations import Destination, query_value
from sandyard_proxy.doors import Doors, Runners
from sandyard_proxy.errors import BadRequest, ControlPlaneAway, LogLost
from sandyard_proxy.follow.engine import Follower, open_follower
from sandyard_proxy.follow.feeds import BusAndRelay
from sandyard_proxy.follow.formats import LogEncoder, MarkedMessages, PlainMessages, ServerSentEvents
from sandyard_proxy.follow.hub import Hubs, LogHub, Patience
from sandyard_proxy.follow.source import DaemonLog, LogRefused
from sandyard_proxy.follow.stats import FollowStats
from sandyard_proxy.route_table import RouteTable
from sandyard_runner.wire import RelayTick, log_channel

ENTRYPOINT = ("entrypoint", "entrypoint_command")
"""Session and command of the sandbox's first process."""
HOLD_SECONDS = 0.04
"""How long the beginning of a UTF-8 character waits for its end."""
KEEP_ALIVE_SECONDS = 15.0
SMALL_BYTES = 16 << 10
GATHER_SECONDS = 0.004
"""After a small message, how long the next one may grow: a hundred followers of many short lines cost a fifth so."""
MAX_CURSOR = (1 << 63) - 1
MAX_REASON_BYTES = 120

_COMMAND = re.compile(rb"/process/session/([^/]+)/command/([^/]+)/logs/?")
_ENTRYPOINT = re.compile(rb"/process/session/entrypoint/logs/?")


class FollowRequest(msgspec.Struct, frozen=True):
    """A request for a log that the proxy answers."""

    session_id: str
    command_id: str
    cursor: int
    limit: int | None
    live: bool
    """Go on until the command has ended; otherwise up to the current end."""
    base64: bool


def log_of(destination: Destination) -> tuple[str, str] | None:
    """Session and command whose log is asked for, or `None`."""
    if not destination.is_toolbox:
        return None
    if _ENTRYPOINT.fullmatch(destination.path):
        return ENTRYPOINT
    match = _COMMAND.fullmatch(destination.path)
    return None if match is None else (unquote(match[1].decode("latin-1")), unquote(match[2].decode("latin-1")))


def wants_follow(scope: Scope) -> bool:
    """Whether the proxy answers: every WebSocket, and GET with `follow=true`."""
    return scope["type"] == "websocket" or (scope["method"] == "GET" and query_value(scope, "follow") == "true")


def read_request(scope: Scope, session_id: str, command_id: str) -> FollowRequest:
    """Raises `BadRequest`."""
    last_event = text_header(scope["headers"], b"last-event-id")
    encoding = query_value(scope, "encoding") or "utf-8"
    if encoding not in ("utf-8", "base64"):
        raise BadRequest("bad request: encoding is utf-8 or base64")
    cursor = last_event or query_value(scope, "cursor")
    limit = query_value(scope, "limit")
    return FollowRequest(
        session_id,
        command_id,
        cursor=_number("cursor", cursor) if cursor else 0,
        limit=_number("limit", limit) if limit else None,
        live=query_value(scope, "follow") == "true",
        base64=encoding == "base64",
    )


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 19 or int(text) > MAX_CURSOR:
        raise BadRequest(f"bad request: {name} is a byte count, not {text[:40]!r}")
    return int(text)


class FollowRoutes:
    """Serves followed logs of all sandboxes."""

    def __init__(
        self, routes: RouteTable, doors: Doors, runners: Runners, bus: Bus, *, patience: Patience | None = None
    ) -> None:
        self.stats = FollowStats()
        self._routes = routes
        self._doors = doors
        self._runners = runners
        self._bus = bus
        self._hubs = Hubs(self.stats, patience or Patience())

    async def serve(self, scope: Scope, receive: Receive, send: Send, route: Route, request: FollowRequest) -> None:
        """Answer one request. Raises `DoorUnreachable` before anything was answered."""
        if scope["type"] == "websocket" and (await receive())["type"] != "websocket.connect":
            return
        caller = Caller.of(
            lambda name: text_header(scope["headers"], name.lower().encode()), scope.get("subprotocols") or ()
        )
        try:
            async with self._open(route, request) as follower:
                if scope["type"] == "websocket":
                    await self._websocket(scope, receive, send, follower, caller)
                elif "text/event-stream" in (text_header(scope["headers"], b"accept") or ""):
                    await self._events(receive, send, follower, ServerSentEvents(as_base64=request.base64))
                else:
                    await self._text(receive, send, follower, caller)
        except LogRefused as error:
            await answer(scope, send, error.refusal_status, error.body, content_type="application/json")

    def _open(self, route: Route, request: FollowRequest) -> AbstractAsyncContextManager[Follower]:
        first = True

        async def open_relay() -> AsyncGenerator[RelayTick, None]:
            nonlocal first
            current = route if first else await self._refreshed(route)
            first = False
            runner = self._runners.get(current.runner_url or "")
            return runner.relay(route.sandbox_id, request.session_id, request.command_id)

        source = DaemonLog(self._doors.get(route), request.session_id, request.command_id)
        channel = log_channel(route.sandbox_id, request.command_id)
        key = (route.sandbox_id, route.door_secret, request.session_id, request.command_id)

        def join() -> AbstractAsyncContextManager[LogHub]:
            return self._hubs.join(key, lambda: BusAndRelay(self._bus, channel, source, open_relay))

        return open_follower(
            source, request.cursor, join if request.live else None, limit=request.limit, stats=self.stats
        )

    async def _refreshed(self, route: Route) -> Route:
        """The sandbox's route as of now. Raises `LogLost` when it does not run any more."""
        try:
            current = await self._routes.route(route.sandbox_id, fresh=True)
        except ControlPlaneAway:
            return route  # it decides nothing here: daemon and runner may well be there
        if current is None:
            raise LogLost("the sandbox was deleted")
        if current.state != "started" or current.door_secret != route.door_secret:
            raise LogLost("the sandbox was stopped")
        return current

    async def _websocket(self, scope: Scope, receive: Receive, send: Send, follower: Follower, caller: Caller) -> None:
        encoder: LogEncoder = PlainMessages()
        if caller.follow_has_markers:
            encoder = MarkedMessages(
                lone_marker=caller.follow_wants_lone_marker, closing_marker=caller.follow_wants_closing_marker
            )

        async def put(message: bytes) -> None:
            await send({"type": "websocket.send", "bytes": message})

        async def work() -> None:
            try:
                await _pump(follower, encoder, put)
            except LogLost as error:
                self.stats.logs_lost += 1
                reason = error.message.encode()[:MAX_REASON_BYTES].decode(errors="ignore")
                await send({"type": "websocket.close", "code": 1011, "reason": reason})
            else:
                await send({"type": "websocket.close", "code": 1000, "reason": ""})

        await send({"type": "websocket.accept", "subprotocol": _choose_subprotocol(scope)})
        await _while_listening(receive, work())

    async def _text(self, receive: Receive, send: Send, follower: Follower, caller: Caller) -> None:
        marked = caller.split_output or (caller.has_version and caller.follow_has_markers)
        encoder: LogEncoder = MarkedMessages() if marked else PlainMessages()
        kind = b"application/octet-stream" if marked else b"text/plain; charset=utf-8"

        async def work() -> None:
            try:
                await _pump(follower, encoder, _body(send))
            except LogLost:
                self.stats.logs_lost += 1  # without the last chunk of the body the client sees that it was cut off
                raise
            await send({"type": "http.response.body", "body": b""})

        await send({"type": "http.response.start", "status": 200, "headers": _stream_headers(kind)})
        await _while_listening(receive, work())

    async def _events(self, receive: Receive, send: Send, follower: Follower, encoder: ServerSentEvents) -> None:
        put = _body(send)

        async def work() -> None:
            try:
                await _pump(follower, encoder, put, keep_alive=b": \n\n")
            except LogLost as error:
                self.stats.logs_lost += 1
                await put(encoder.lost(error.message))
            else:
                await put(encoder.ended(follower.position, follower.exit_code))
            await send({"type": "http.response.body", "body": b""})

        await send({"type": "http.response.start", "status": 200, "headers": _stream_headers(b"text/event-stream")})
        await _while_listening(receive, work())


Put = Callable[[bytes], Coroutine[Any, Any, None]]


async def _pump(follower: Follower, encoder: LogEncoder, put: Put, *, keep_alive: bytes = b"") -> None:
    """Everything up to the log's end. Raises `LogLost`, after all that was there went out."""
    lost: LogLost | None = None
    frames: list[LogFrame] | None = []
    while frames is not None:
        timeout = HOLD_SECONDS if encoder.holds else KEEP_ALIVE_SECONDS if keep_alive else None
        try:
            frames = await follower.next(timeout)
        except LogLost as error:
            lost, frames = error, None
        messages = encoder.encode(frames) if frames else encoder.flush()
        if frames == [] and not messages and keep_alive:
            messages = [keep_alive]
        for message in messages:
            await put(message)
        if messages and sum(map(len, messages)) < SMALL_BYTES:
            await follower.gather(GATHER_SECONDS)
    if lost is not None:
        raise lost


async def _while_listening(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do the work until it is done or the client is gone; what the client says meanwhile is read and ignored.

    Reading all the time is what lets the server answer pings while output floods.
    """

    async def listen() -> None:
        while not (await receive())["type"].endswith(".disconnect"):
            pass

    worker = asyncio.create_task(work)
    listener = asyncio.create_task(listen())
    try:
        await asyncio.wait({worker, listener}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        worker.cancel()
        listener.cancel()
        await asyncio.wait({worker, listener})
    if not worker.cancelled():
        worker.result()


def _body(send: Send) -> Put:
    async def put(piece: bytes) -> None:
        await send({"type": "http.response.body", "body": piece, "more_body": True})

    return put


def _stream_headers(content_type: bytes) -> list[tuple[bytes, bytes]]:
    return [
        (b"content-type", content_type),
        (b"cache-control", b"no-store"),
        (b"x-accel-buffering", b"no"),
        (b"x-content-type-options", b"nosniff"),
    ]


def _choose_subprotocol(scope: Scope) -> str | None:
    """One of the offered ones, the SDK's version before others: browsers close a socket that chose none of theirs."""
    offered: list[str] = list(scope.get("subprotocols") or ())
    versions = [name for name in offered if name.lower().startswith(SUBPROTOCOL_PREFIX.lower())]
    return next(iter(versions + offered), None)
