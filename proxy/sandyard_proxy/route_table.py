"""What the control plane says about sandboxes and keys, remembered for seconds and dropped on a hint."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Generic, TypeVar

import structlog

from sandyard.bus import Bus, BusError
from sandyard.clock import Clock
from sandyard_api.jobs.client import BadKey, ControlPlane, ControlPlaneError, UnknownRoute
from sandyard_api.jobs.wire import CHANNEL_KEYS, CHANNEL_ROUTES, KeyGrant, Route
from sandyard_proxy.errors import ControlPlaneAway

log = structlog.get_logger(__name__)

Value = TypeVar("Value")

ROUTE_SECONDS = 5.0
KEY_SECONDS = 60.0
UNKNOWN_SECONDS = 1.0
MAX_ENTRIES = 10_000
RESUBSCRIBE_SECONDS = 1.0


class Remembered(Generic[Value]):
    """Answers of one question by key. Callers that ask the same at the same time share one request."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._known: dict[str, tuple[float, Value | None]] = {}
        self._asking: dict[str, asyncio.Task[Value | None]] = {}
        self._tasks: set[asyncio.Task[Value | None]] = set()
        self._generation = 0

    async def get(self, key: str, ask: Callable[[], Awaitable[Value | None]], *, fresh: bool = False) -> Value | None:
        """The answer, from `ask` unless remembered, or if `fresh`; `None` is "unknown". Raises `ControlPlaneAway`."""
        if not fresh:
            known = self._known.get(key)
            if known is not None and self._clock.monotonic() < known[0]:
                return known[1]
        task = self._asking.get(key)
        if task is None:
            task = asyncio.create_task(self._fetch(key, ask))
            self._asking[key] = task
            self._tasks.add(task)
            task.add_done_callback(lambda done: self._finished(key, done))
        try:
            # Shielded: the other callers of the same question still want the answer when this one goes away.
            return await asyncio.shield(task)
        except ControlPlaneError as error:
            raise ControlPlaneAway("service unavailable: the control plane does not answer") from error

    def forget(self, drop: Callable[[str, Value | None], bool]) -> None:
        """Forget what `drop(key, value)` says yes to, and do not remember what is being asked right now."""
        self._generation += 1
        self._asking.clear()
        for key in [key for key, (_, value) in self._known.items() if drop(key, value)]:
            del self._known[key]

    async def close(self) -> None:
        """End what is being asked."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _fetch(self, key: str, ask: Callable[[], Awaitable[Value | None]]) -> Value | None:
        generation = self._generation
        value = await ask()
        if generation == self._generation:
            seconds = UNKNOWN_SECONDS if value is None else self._seconds
            self._known.pop(key, None)
            self._known[key] = (self._clock.monotonic() + seconds, value)
            while len(self._known) > MAX_ENTRIES:
                del self._known[next(iter(self._known))]
        return value

    def _finished(self, key: str, task: asyncio.Task[Value | None]) -> None:
        self._tasks.discard(task)
        if self._asking.get(key) is task:
            del self._asking[key]
        if not task.cancelled():
            task.exception()  # every caller may have gone away; the error is theirs, not the loop's


class RouteTable:
    """Routes by sandbox id, name, preview token or signed preview's token; grants by API key.

    Keys themselves are not kept, only digests.
    """

    def __init__(self, control_plane: ControlPlane, clock: Clock) -> None:
        self._control_plane = control_plane
        self._clock = clock
        self._ahead = timedelta()
        """How far the control plane's clock is ahead of ours, as its last answer told: it may be a virtual one."""
        self._routes: Remembered[Route] = Remembered(clock, ROUTE_SECONDS)
        self._grants: Remembered[KeyGrant] = Remembered(clock, KEY_SECONDS)

    async def route(self, key: str, *, fresh: bool = False) -> Route | None:
        """The route that answers to `key`, or `None`. Raises `ControlPlaneAway`."""

        async def ask() -> Route | None:
            try:
                route = await self._control_plane.route(key)
            except UnknownRoute:
                return None
            self._ahead = (route.told_at or self._clock.now()) - self._clock.now()
            return route

        return await self._routes.get(key, ask, fresh=fresh)

    def now(self) -> datetime:
        """By the control plane's clock, which tokens expire by."""
        return self._clock.now() + self._ahead

    async def told_now(self, keys: Sequence[str]) -> datetime:
        """By the control plane's clock as it tells with the first of these that has a route.

        Raises `ControlPlaneAway`.
        """
        for key in keys:
            route = await self.route(key, fresh=True)
            if route is not None and route.told_at is not None:
                return route.told_at
        return self.now()

    async def grant(self, key: str) -> KeyGrant | None:
        """What an API key stands for, or `None`. Raises `ControlPlaneAway`."""

        async def ask() -> KeyGrant | None:
            try:
                return await self._control_plane.check_key(key)
            except BadKey:
                return None

        return await self._grants.get(hashlib.sha256(key.encode()).hexdigest(), ask)

    def forget(self, sandbox: str) -> None:
        """What is known of the sandbox with that id or name, of all for "", is stale; so is what was unknown."""
        self._routes.forget(lambda key, route: route is None or sandbox in ("", key, route.sandbox_id, route.name))

    def forget_grants(self) -> None:
        """What is known of keys is stale."""
        self._grants.forget(lambda _key, _grant: True)

    async def watch(self, bus: Bus) -> None:
        """Drop what hints on the bus say is stale, for as long as the proxy runs."""
        while True:
            try:
                await self._watch(bus)
            except BusError as error:
                log.warning("hints_unavailable", error=str(error))
                self._forget_all()
                await asyncio.sleep(RESUBSCRIBE_SECONDS)

    async def close(self) -> None:
        """End open questions."""
        await self._routes.close()
        await self._grants.close()

    async def _watch(self, bus: Bus) -> None:
        async with bus.subscribe(CHANNEL_ROUTES, CHANNEL_KEYS) as hints:
            lost = hints.lost
            self._forget_all()
            while True:
                hint = await hints.next()
                if hints.lost != lost:
                    lost = hints.lost
                    self._forget_all()
                if hint is not None and hint.channel == CHANNEL_KEYS:
                    self.forget_grants()
                elif hint is not None:
                    self.forget(hint.payload.decode(errors="replace"))

    def _forget_all(self) -> None:
        self.forget("")
        self.forget_grants()
