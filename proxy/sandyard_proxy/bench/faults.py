"""The faults of one proxy: rules shared over the bus, and what they do to the requests that they meet."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from uuid import uuid4

import msgspec
import structlog

from sandyard.beside import meanwhile
from sandyard.bus import Bus, BusError
from sandyard.clock import Clock
from sandyard.faults import rules
from sandyard.faults.sharing import (
    CHANNEL_FAULTS,
    Add,
    AnyMessage,
    Hello,
    Remove,
    Strike,
    Struck,
    decode,
    encode,
)
from sandyard.faults.table import Entry, Facts, FaultTable
from sandyard_proxy.asgi import Message, Receive, Scope, Send
from sandyard_proxy.auth import bearer
from sandyard_proxy.bench.acting import Altered, Serve, answer_status, hang, hang_up, lasting, until_gone
from sandyard_proxy.bench.rewriting import Rewritten
from sandyard_proxy.errors import ControlPlaneAway
from sandyard_proxy.route_table import RouteTable
from sandyard_proxy.sandboxes import SKIP_ACTIVITY

STRUCK_SECONDS = 30.0
KNOWN_SECONDS = 0.01
MAX_PEEK_BYTES = 1 << 20
NO_RUNNER = rules.Status(status=400, message="No available runners")
NO_ANSWER = rules.Status(status=502, message="bad gateway: the runner does not answer")

log = structlog.get_logger(__name__)


class Faults:
    """The rules, and their application."""

    def __init__(self, routes: RouteTable, bus: Bus, clock: Clock) -> None:
        self._routes = routes
        self._bus = bus
        self._clock = clock
        self.table = FaultTable()
        self._removed: dict[str, asyncio.Event] = {}
        self._striking: dict[str, asyncio.Future[str | None]] = {}
        self._sender = uuid4().hex

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Share rules with the other proxies and the runners for as long as the block lasts."""
        async with self._bus.subscribe(CHANNEL_FAULTS) as messages:

            async def listen() -> None:
                async for message in messages:
                    told = decode(message.payload)
                    if told is not None and told.sender != self._sender:
                        await self._hear(told)

            async with meanwhile(listen(), name="faults"):
                await self._say(Hello(sender=self._sender))
                yield

    async def add(self, organization_id: str, rule: rules.Rule) -> Entry:
        """Put a rule in force here and everywhere."""
        message = Add(sender=self._sender, id=f"fault-{uuid4().hex[:12]}", organization_id=organization_id, rule=rule)
        await self._say(message)
        return self._put(message)

    async def remove(self, entries: list[Entry]) -> None:
        """Take rules back here and everywhere; what hangs by one of them goes on."""
        await self.refresh(entries)
        self._drop([entry.id for entry in entries])
        if entries:
            with suppress(BusError):  # it forgets them by itself in time
                await self._bus.forget(*(entry.key for entry in entries))
            await self._say(Remove(sender=self._sender, ids=[entry.id for entry in entries]))

    async def refresh(self, entries: list[Entry]) -> None:
        """Let these know how often they were met and fired anywhere."""
        try:
            for entry in entries:
                await entry.refresh(self._bus)
        except BusError as error:
            log.warning("faults_not_counted", error=str(error))

    async def apply(self, scope: Scope, receive: Receive, send: Send, serve: Serve) -> None:
        """Serve one request, with the fault that a rule orders for it if there is one."""
        facts, receive = await self._facts(scope, receive)
        try:
            entry = await self.table.strike(facts, self._bus)
        except BusError as error:
            failed = rules.Status(status=503, message=f"the ordered fault could not be counted: {error}")
            await answer_status(scope, send, failed, source="DAYTONA_PROXY")
            return
        if entry is None:
            await serve(scope, receive, send)
            return
        log.info("fault", rule=entry.rule.name or entry.id, method=facts.method, path=facts.path)
        await self._act(entry, facts, (scope, lasting(receive), send), serve)

    async def _act(self, entry: Entry, facts: Facts, exchange: tuple[Scope, Receive, Send], serve: Serve) -> None:
        scope, receive, send = exchange
        match entry.rule.action:
            case rules.Status() | rules.RunnerGone() | rules.Drop() | rules.Hang():
                await self._instead(entry, facts, exchange)
                return
            case rules.Delay(seconds=seconds):
                await self._clock.sleep(seconds)
            case rules.Uncounted():
                scope = {**scope, "headers": [*scope["headers"], (SKIP_ACTIVITY, b"true")]}
            case rules.Die() | rules.OutOfMemory():
                problem = await self._strike(entry, facts)
                if problem is not None:
                    failed = rules.Status(status=503, message=f"the ordered fault could not be applied: {problem}")
                    await answer_status(scope, send, failed, source="DAYTONA_PROXY")
                    return
            case rules.Rewrite() as action:
                send = Rewritten(send, action, self._routes)
            case action:
                await self._altered(action, exchange, serve)
                return
        await serve(scope, receive, send)

    async def _instead(self, entry: Entry, facts: Facts, exchange: tuple[Scope, Receive, Send]) -> None:
        """What happens in place of the work."""
        scope, receive, send = exchange
        is_api = facts.path.startswith("/api/")
        match entry.rule.action:
            case rules.Status() as action:
                await answer_status(scope, send, action, source="DAYTONA_API" if is_api else "DAYTONA_DAEMON")
            case rules.RunnerGone() if is_api:
                await answer_status(scope, send, NO_RUNNER, source="DAYTONA_API")
            case rules.RunnerGone():
                await answer_status(scope, send, NO_ANSWER, source="DAYTONA_PROXY")
            case rules.Hang(seconds=seconds):
                await hang(receive, self._removed[entry.id], seconds)
                await hang_up(scope, receive)
            case _:
                await hang_up(scope, receive)

    async def _altered(self, action: rules.Action, exchange: tuple[Scope, Receive, Send], serve: Serve) -> None:
        """The work, with something happening to its answer."""
        scope, receive, send = exchange
        altered = Altered(scope, send, action, self._clock)
        await serve(scope, receive, altered)
        if altered.has_left:
            with suppress(TimeoutError):
                async with asyncio.timeout(STRUCK_SECONDS):
                    await until_gone(receive)

    async def _strike(self, entry: Entry, facts: Facts) -> str | None:
        """Have the sandbox ended by its runner; the reason when that did not happen."""
        token, kind = uuid4().hex, "die" if isinstance(entry.rule.action, rules.Die) else "out-of-memory"
        done: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._striking[token] = done
        try:
            await self._bus.publish(
                CHANNEL_FAULTS,
                encode(Strike(sender=self._sender, token=token, sandbox_id=facts.sandbox_id or "", kind=kind)),  # type: ignore[arg-type]
            )
            async with asyncio.timeout(STRUCK_SECONDS):
                problem = await done
                # Until the control plane knows, what a client meets would depend on who is quicker.
                while problem is None and await self._is_started(facts.sandbox_id or ""):
                    await self._clock.sleep(KNOWN_SECONDS)
                return problem
        except (TimeoutError, BusError):
            return "no runner has that sandbox running"
        finally:
            del self._striking[token]

    async def _is_started(self, sandbox_id: str) -> bool:
        route = await self._routes.route(sandbox_id, fresh=True)
        return route is not None and route.state == "started"

    async def _facts(self, scope: Scope, receive: Receive) -> tuple[Facts, Receive]:
        """What rules ask about; only what some rule needs costs a look-up."""
        from sandyard_proxy.bench.operations import CREATE, meant

        what = meant(scope)
        path = str(scope.get("raw_path") or scope["path"].encode(), "latin-1").partition("?")[0]
        facts = Facts(None, scope.get("method", "GET"), path, what.operation)
        try:
            key = bearer(scope)
            grant = await self._routes.grant(key) if key is not None else None
            route = await self._routes.route(what.sandbox_key) if what.sandbox_key else None
        except ControlPlaneAway:
            return facts, receive  # the request itself is about to find out
        facts = msgspec.structs.replace(facts, organization_id=grant.organization_id if grant else None)
        if route is not None:
            facts = msgspec.structs.replace(
                facts,
                organization_id=facts.organization_id or route.organization_id,
                sandbox_id=route.sandbox_id,
                sandbox_name=route.name,
                labels=route.labels,
            )
        elif what.operation == CREATE and any(entry.rule.label or entry.rule.sandbox for entry in self.table.of(None)):
            body, receive = await _peek(receive)
            facts = _of_new(facts, body)
        return facts, receive

    async def _hear(self, message: AnyMessage) -> None:
        match message:
            case Add() if message.id not in self.table:
                self._put(message)
            case Remove(ids=ids):
                self._drop(ids)
            case Hello():
                for entry in self.table.of(None):
                    told = Add(sender=self._sender, id=entry.id, organization_id=entry.organization_id, rule=entry.rule)
                    await self._say(told)
            case Struck(token=token, problem=problem):
                waiting = self._striking.get(token)
                if waiting is not None and not waiting.done():
                    waiting.set_result(problem)

    def _put(self, message: Add) -> Entry:
        self._removed[message.id] = asyncio.Event()
        return self.table.add(message.id, message.organization_id, message.rule)

    def _drop(self, ids: list[str]) -> None:
        for each in ids:
            self.table.remove(each)
            if (removed := self._removed.pop(each, None)) is not None:
                removed.set()

    async def _say(self, message: AnyMessage) -> None:
        try:
            await self._bus.publish(CHANNEL_FAULTS, encode(message))
        except BusError as error:
            log.warning("hint_lost", channel=CHANNEL_FAULTS, error=str(error))


async def _peek(receive: Receive) -> tuple[bytes, Receive]:
    """The beginning of a request's body, and a `receive` that gives it once more."""
    taken: list[Message] = []
    body = b""
    while len(body) <= MAX_PEEK_BYTES:
        message = await receive()
        taken.append(message)
        body += message.get("body", b"")
        if message["type"] != "http.request" or not message.get("more_body"):
            break

    async def again() -> Message:
        return taken.pop(0) if taken else await receive()

    return body, again


def _of_new(facts: Facts, body: bytes) -> Facts:
    """What the body of a create says; one that cannot be read says nothing."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        return facts
    if not isinstance(asked, dict):
        return facts
    labels, name = asked.get("labels"), asked.get("name")
    labels = {key: str(value) for key, value in labels.items()} if isinstance(labels, dict) else {}
    return msgspec.structs.replace(facts, labels=labels, sandbox_name=name if isinstance(name, str) else None)
