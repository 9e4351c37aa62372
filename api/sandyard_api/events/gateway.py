"""Socket.IO: pushes what happens to what an organization has. Clients send nothing but their key.

The library is imported with the first socket: it takes an eighth of the time until a start is ready.
"""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from sandyard.beside import meanwhile
from sandyard.bus import Bus
from sandyard_api.access import SCOPE_ORIGIN
from sandyard_api.api_keys.service import ApiKeys
from sandyard_api.errors import ApiError
from sandyard_api.events.telling import CHANNEL_EVENTS, Event
from sandyard_api.origins import Origin

if TYPE_CHECKING:
    from socketio import AsyncServer

log = structlog.get_logger()

Room = tuple[str, str]
"""Organization and base URL: every socket gets URLs that lead back the way it came."""


class EventGateway:
    """The event sockets of this replica; what happened comes over the bus, from every replica."""

    def __init__(self, bus: Bus, keys: ApiKeys) -> None:
        self._bus = bus
        self._keys = keys
        self._rooms: Counter[Room] = Counter()
        self._room_of: dict[str, Room] = {}
        self._server: AsyncServer | None = None
        self._app: Any = None

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI application under `/api/socket.io`."""
        if self._app is None:
            self._open()
        await self._app(scope, receive, send)

    def _open(self) -> None:
        import socketio

        self._server = socketio.AsyncServer(
            async_mode="asgi",
            transports=["websocket"],
            cors_allowed_origins=[],  # the gate has checked the Origin before
            logger=False,
            engineio_logger=False,
        )
        self._server.on("connect", self._connect)
        self._server.on("disconnect", self._disconnect)
        self._app = socketio.ASGIApp(self._server, socketio_path="api/socket.io")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Push events for as long as the block lasts."""
        async with self._bus.subscribe(CHANNEL_EVENTS) as subscription:

            async def relay() -> None:
                async for message in subscription:
                    try:
                        await self._push(message.payload)
                    except Exception:
                        # One event that cannot be sent must not end all the others.
                        log.exception("event_not_pushed")

            try:
                async with meanwhile(relay(), name="events"):
                    yield
            finally:
                if self._server is not None:
                    await self._server.shutdown()

    async def _connect(self, sid: str, environ: dict[str, Any], auth: object = None) -> None:
        token = auth.get("token") if isinstance(auth, dict) else None
        try:
            grant = await self._keys.check(token if isinstance(token, str) else "")
        except ApiError as error:
            from socketio.exceptions import ConnectionRefusedError as Refused

            raise Refused("Unauthorized") from error
        origin: Origin = environ["asgi.scope"][SCOPE_ORIGIN]
        room = (grant.organization_id, origin.url)
        self._room_of[sid] = room
        self._rooms[room] += 1
        if self._server is not None:
            await self._server.enter_room(sid, _name(room))

    async def _disconnect(self, sid: str, _reason: object = None) -> None:
        room = self._room_of.pop(sid, None)
        if room is not None:
            self._rooms[room] -= 1
            if not self._rooms[room]:
                del self._rooms[room]

    async def _push(self, payload: bytes) -> None:
        try:
            event = msgspec.json.decode(payload, type=Event)
        except msgspec.MsgspecError as error:
            log.warning("event_unreadable", error=str(error))
            return
        item = msgspec.json.decode(event.item)
        for room in tuple(self._rooms):
            if self._server is not None and room[0] == event.organization_id:
                urls = {"toolboxProxyUrl": f"{room[1]}/toolbox"} if event.subject == "sandbox" else {}
                await self._server.emit(event.name, _body(event, {**item, **urls}), room=_name(room))


def _body(event: Event, item: dict[str, Any]) -> dict[str, Any]:
    if event.name == "sandbox.desired-state.updated":
        return {"sandbox": item, "oldDesiredState": event.old, "newDesiredState": event.new}
    if event.name.endswith(".state.updated"):
        return {event.subject: item, "oldState": event.old, "newState": event.new}
    return item


def _name(room: Room) -> str:
    return "\n".join(room)
