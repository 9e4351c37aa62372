"""Where every request passes while faults or the journal are in use, and their own routes under `/_sandyard/`."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl

from sandyard.bus import Bus
from sandyard.clock import Clock
from sandyard.faults.rules import InvalidRule, as_json, read_rule
from sandyard.faults.table import Entry
from sandyard_api.jobs.wire import KeyGrant
from sandyard_proxy.asgi import Message, Receive, Scope, Send, answer, answer_json, raw_path, text_header
from sandyard_proxy.auth import bearer
from sandyard_proxy.bench.acting import Serve
from sandyard_proxy.bench.faults import Faults
from sandyard_proxy.bench.journal import Journal, Record, Recorder
from sandyard_proxy.errors import BadRequest, ControlPlaneAway, NotFound, Unauthenticated
from sandyard_proxy.route_table import RouteTable

PREFIX = "/_sandyard/"
FAULTS, JOURNAL, RESET = "/_sandyard/faults", "/_sandyard/journal", "/_sandyard/reset"
QUIRKS = "/_sandyard/quirks"
MAX_BODY_BYTES = 1 << 18
SEARCHES = ("operation", "method", "status", "sandbox", "source", "version", "path", "text", "since")
FORMATS = ("json", "curl", "har", "pytest")


class Bench:
    """Faults and journal of one proxy."""

    def __init__(self, routes: RouteTable, bus: Bus, clock: Clock, *, journal: bool, version: str) -> None:
        self._routes = routes
        self._version = version
        self.faults = Faults(routes, bus, clock)
        self.journal = Journal(clock, is_on=journal)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Share rules for as long as the block lasts."""
        async with self.faults.running():
            yield

    @property
    def is_idle(self) -> bool:
        """Whether no request needs to come by here."""
        return not self.journal.is_on and not len(self.faults.table)

    def owns(self, scope: Scope) -> bool:
        """Whether a request is for us."""
        path = _path(scope)
        return (
            scope["type"] == "http" and path in (FAULTS, JOURNAL, f"{JOURNAL}/coverage", RESET, QUIRKS)
        ) or path.startswith(f"{FAULTS}/")

    async def around(self, scope: Scope, receive: Receive, send: Send, serve: Serve) -> None:
        """Serve one request, recorded and with what faults there are for it."""
        if _path(scope).startswith(PREFIX) or _path(scope) == "/health":
            await serve(scope, receive, send)
            return
        if not self.journal.is_on:
            await self.faults.apply(scope, receive, send, serve)
            return
        recorder = Recorder(await self._begin(scope), receive, send)
        try:
            inner = self.faults.apply if len(self.faults.table) else _plainly
            await inner(scope, recorder.receive, recorder.send, serve)
        finally:
            record = recorder.end()
            if record.operation == "createSandbox" and record.status == 200:
                record.sandbox = _id_of(record)
            self.journal.keep(record)

    async def serve(self, scope: Scope, receive: Receive, send: Send, control_plane: Serve) -> None:
        """Answer one of our own routes. Raises `ProxyError`."""
        key = bearer(scope)
        grant = await self._routes.grant(key) if key is not None else None
        if grant is None:
            raise Unauthenticated("unauthorized: the API key is missing or not valid")
        path, method = _path(scope), scope["method"]
        if path == RESET:
            await self._reset(scope, receive, send, control_plane, grant)
        elif path.startswith(FAULTS):
            await self._serve_faults(scope, receive, send, grant)
        elif path == QUIRKS:
            await self._serve_quirks(scope, receive, send, grant)
        elif path == JOURNAL and method == "POST":
            await self._switch_journal(scope, receive, send, grant)
        elif path == JOURNAL and method == "DELETE":
            self.journal.clear(_whose(grant))
            await answer_json(scope, send, 200, {"cleared": True})
        elif method == "GET":
            await self._read_journal(scope, send, grant)
        else:
            raise NotFound(f"not found: {method} {path}")

    async def _serve_faults(self, scope: Scope, receive: Receive, send: Send, grant: KeyGrant) -> None:
        method, entry_id = scope["method"], _path(scope).removeprefix(FAULTS).strip("/")
        own = self.faults.table.of(grant.organization_id)
        chosen = [entry for entry in own if entry.id == entry_id] if entry_id else own
        if entry_id and not chosen:
            raise NotFound(f"not found: no rule {entry_id}")
        if method == "GET":
            await self.faults.refresh(chosen)
            await answer_json(scope, send, 200, {"faults": [_shown(entry) for entry in chosen]})
        elif method == "DELETE":
            await self.faults.remove(chosen)
            unused = [_shown(entry) for entry in chosen if not entry.fired]
            await answer_json(scope, send, 200, {"removed": len(chosen), "neverFired": unused})
        elif method == "POST" and not entry_id:
            await self._add(scope, receive, send, grant)
        else:
            raise NotFound(f"not found: {method} {_path(scope)}")

    async def _serve_quirks(self, scope: Scope, receive: Receive, send: Send, grant: KeyGrant) -> None:
        from sandyard.faults import quirks

        own = self.faults.table.of(grant.organization_id)
        if scope["method"] == "POST":
            asked = _json(await _body(receive))
            quirk = quirks.QUIRKS.get(str(asked.get("name")))
            if quirk is None or set(asked) != {"name", "on"} or not isinstance(asked["on"], bool):
                raise BadRequest(
                    f'the body is {{"name": ..., "on": true or false}}; names are {", ".join(quirks.QUIRKS)}'
                )
            await self.faults.remove([entry for entry in own if entry.rule.name == quirk.rule.name])
            if asked["on"]:
                await self.faults.add(grant.organization_id, quirk.rule)
            own = self.faults.table.of(grant.organization_id)
        names = {entry.rule.name for entry in own}
        shown = [
            {"name": one.name, "what": one.what, "source": one.source, "on": one.rule.name in names}
            for one in quirks.QUIRKS.values()
        ]
        await answer_json(scope, send, 200, {"quirks": shown})

    async def _add(self, scope: Scope, receive: Receive, send: Send, grant: KeyGrant) -> None:
        from sandyard_proxy.bench.operations import problem_of

        try:
            rule = read_rule(await _body(receive))
        except InvalidRule as error:
            raise BadRequest(f"this rule cannot be: {error}") from error
        problem = problem_of(rule.operation) if rule.operation is not None else None
        if problem:
            raise BadRequest(f"this rule cannot be: {problem}")
        entry = await self.faults.add(grant.organization_id, rule)
        await answer_json(scope, send, 201, _shown(entry))

    async def _switch_journal(self, scope: Scope, receive: Receive, send: Send, grant: KeyGrant) -> None:
        asked = _json(await _body(receive))
        if set(asked) != {"on"} or not isinstance(asked["on"], bool):
            raise BadRequest('the body is {"on": true} or {"on": false}')
        if not grant.is_owner:
            raise BadRequest("the journal is switched by the key of the installation's owner")
        self.journal.is_on = asked["on"]
        await answer_json(scope, send, 200, {"on": self.journal.is_on})

    async def _read_journal(self, scope: Scope, send: Send, grant: KeyGrant) -> None:
        from sandyard_proxy.bench import exports
        from sandyard_proxy.bench.operations import known

        query = dict(parse_qsl((scope.get("query_string") or b"").decode("latin-1")))
        form = query.pop("format", "json")
        unknown = sorted(set(query) - set(SEARCHES))
        if unknown or form not in FORMATS or not query.get("since", "0").isdecimal():
            raise BadRequest(f"a journal is searched by {', '.join(SEARCHES)}; format is one of {', '.join(FORMATS)}")
        records = list(self.journal.search(_whose(grant), **query))
        if _path(scope).endswith("/coverage"):
            await answer_json(scope, send, 200, exports.coverage(records, known()))
        elif form == "json":
            told = {"on": self.journal.is_on, "dropped": self.journal.dropped}
            await answer_json(scope, send, 200, told | {"records": [record.as_json() for record in records]})
        elif form == "har":
            origin = f"{scope.get('scheme', 'http')}://{text_header(scope['headers'], b'host')}"
            await answer_json(scope, send, 200, exports.as_har(records, origin, self._version))
        else:
            text = exports.as_curl(records) if form == "curl" else exports.as_pytest(records)
            await answer(scope, send, 200, text.encode(), content_type="text/plain; charset=utf-8")

    async def _reset(self, scope: Scope, receive: Receive, send: Send, control_plane: Serve, grant: KeyGrant) -> None:
        """The control plane removes its part; after that ours goes, too."""
        body, status = await _body(receive), 0
        sent = False

        async def again() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if status == 200:
                    whose = None if b'"all"' in body and grant.is_owner else grant.organization_id
                    await self.faults.remove(self.faults.table.of(whose))
                    self.journal.clear(whose)
            await send(message)

        await control_plane(scope, again, watched)

    async def _begin(self, scope: Scope) -> Record:
        from sandyard_proxy.bench.operations import meant

        what = meant(scope)
        key = bearer(scope)
        organization_id: str | None = None
        sandbox: str | None = None
        try:
            grant = await self._routes.grant(key) if key is not None else None
            organization_id = grant.organization_id if grant else None
            route = await self._routes.route(what.sandbox_key) if what.sandbox_key else None
            if route is not None:
                sandbox, organization_id = route.sandbox_id, organization_id or route.organization_id
        except ControlPlaneAway:
            pass  # recorded without
        return self.journal.begin(scope, operation=what.operation, sandbox=sandbox, organization_id=organization_id)


async def _plainly(scope: Scope, receive: Receive, send: Send, serve: Serve) -> None:
    await serve(scope, receive, send)


def _whose(grant: KeyGrant) -> str | None:
    """The owner sees everybody's records, those of refused callers among them."""
    return None if grant.is_owner else grant.organization_id


def _path(scope: Scope) -> str:
    return raw_path(scope).decode("latin-1")


def _shown(entry: Entry) -> dict[str, Any]:
    return {"id": entry.id, "seen": entry.seen, "fired": entry.fired, "rule": as_json(entry.rule)}


def _id_of(record: Record) -> str | None:
    try:
        return str(json.loads(bytes(record.response_body))["id"])
    except (ValueError, KeyError, TypeError):
        return None


async def _body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = bool(message.get("more_body"))
        if len(body) > MAX_BODY_BYTES:
            raise BadRequest(f"a body of more than {MAX_BODY_BYTES} bytes")
    return body


def _json(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is no JSON: {error}") from error
    return value if isinstance(value, dict) else {}
