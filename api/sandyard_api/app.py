"""Building the control plane: its services, the ordered list of slices, and both ASGI applications."""

from collections.abc import AsyncIterator, Callable, MutableMapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from litestar import Litestar, Router
from litestar.di import Provide

from sandyard.bus import Bus
from sandyard.clock import Clock
from sandyard.ids import IdSource
from sandyard_api.access import Guard, key_guard, provide_grant, provide_key, provide_origin, token_guard
from sandyard_api.api_keys import routes as api_key_routes
from sandyard_api.api_keys.service import ApiKeys, keep_owner_key
from sandyard_api.config import routes as config_routes
from sandyard_api.config.service import Health
from sandyard_api.database import Database, open_database
from sandyard_api.dispatch import routes as dispatch_routes
from sandyard_api.dispatch.service import Dispatch
from sandyard_api.events.gateway import EventGateway
from sandyard_api.gate import App, Gate, answer_lifespan, encoded_path
from sandyard_api.jobs.wire import CHANNEL_JOBS
from sandyard_api.options import ControlPlaneOptions
from sandyard_api.organizations import routes as organization_routes
from sandyard_api.organizations.service import Organizations, keep_default_organization
from sandyard_api.origins import Origins
from sandyard_api.previews import routes as preview_routes
from sandyard_api.previews.service import Previews
from sandyard_api.problems import Problems
from sandyard_api.quotas.service import Quotas
from sandyard_api.regions import routes as region_routes
from sandyard_api.runners import routes as runner_routes
from sandyard_api.runners.service import CHANNEL_RUNNERS, Runners
from sandyard_api.sandboxes import inspection as inspection_routes
from sandyard_api.sandboxes import routes as sandbox_routes
from sandyard_api.sandboxes.announcing import Announcer
from sandyard_api.sandboxes.build_logs import BuildLogs
from sandyard_api.sandboxes.listing import Listing
from sandyard_api.sandboxes.service import Sandboxes
from sandyard_api.sealing.service import Seal, check_key
from sandyard_api.sessions import routes as session_routes
from sandyard_api.sessions.service import SessionRecords
from sandyard_api.ssh_access import routes as ssh_access_routes
from sandyard_api.ssh_access.service import SshAccesses
from sandyard_api.timers import Timers
from sandyard_api.users import routes as user_routes
from sandyard_api.wakeups import Wakeups
from sandyard_migrations.upgrade import upgrade

CHANNEL_SANDBOXES = "sandboxes"
"""Hint between replicas: a sandbox changed. Payload: its id."""
MAX_BODY_BYTES = 4 * 1024 * 1024
MAX_INTERNAL_BODY_BYTES = 64 * 1024 * 1024

PUBLIC_SLICES = (
    config_routes.ROUTER,
    api_key_routes.ROUTER,
    organization_routes.ROUTER,
    user_routes.ROUTER,
    region_routes.ROUTER,
    sandbox_routes.ROUTER,
    preview_routes.ROUTER,
    ssh_access_routes.ROUTER,
    inspection_routes.ROUTER,
    session_routes.ROUTER,
    runner_routes.ROUTER,
)
INTERNAL_SLICES = (dispatch_routes.ROUTER,)


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """An open control plane."""

    app: App
    """Public: `/api`, `/api/socket.io`, `/_sandyard`. Serve it with WebSockets on."""
    internal_app: App
    """For runners and proxies only: `/internal`."""
    database: Database
    timers: Timers
    runners: Runners


@dataclass(frozen=True, slots=True)
class Services:
    """What handlers can ask for, by the name of the argument."""

    database: Database
    health: Health
    options: ControlPlaneOptions
    keys: ApiKeys
    organizations: Organizations
    runners: Runners
    sandboxes: Sandboxes
    listing: Listing
    build_log: BuildLogs
    previews: Previews
    ssh_accesses: SshAccesses
    sessions: SessionRecords
    dispatch: Dispatch
    job_hints: Wakeups
    changes: Wakeups
    arrivals: Wakeups
    announcer: Announcer

    def dependencies(self) -> dict[str, Provide]:
        """As the router takes them."""
        named = {name: Provide(_give(getattr(self, name)), sync_to_thread=False) for name in self.__slots__}
        return named | {
            "grant": Provide(provide_grant, sync_to_thread=False),
            "origin": Provide(provide_origin, sync_to_thread=False),
            "key": Provide(provide_key, sync_to_thread=False),
        }


@asynccontextmanager
async def open_control_plane(
    *, database_url: str, bus: Bus, clock: Clock, ids: IdSource, options: ControlPlaneOptions
) -> AsyncIterator[ControlPlane]:
    """Upgrade the database, start timers and event sockets, and close them in reverse order. Serving is the caller's.

    Raises `sqlalchemy.exc.SQLAlchemyError` and `BusError` when database or bus cannot be had, and `WrongKey`.
    """
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(database_url))
        await upgrade(database.engine)
        seal = Seal(options.encryption_key)
        await check_key(database, seal)
        organization_id, user_id = await keep_default_organization(database, clock, ids)
        await keep_owner_key(
            database, clock, ids, organization_id=organization_id, user_id=user_id, key=options.api_key
        )
        services = build_services(database, bus, seal, clock=clock, ids=ids, options=options)
        for hints in (services.changes, services.job_hints, services.arrivals):
            await stack.enter_async_context(hints.listening())
        events = EventGateway(bus, services.keys)
        await stack.enter_async_context(events.running())
        timers = Timers(
            database,
            clock,
            sandboxes=services.sandboxes,
            announcer=services.announcer,
            period_seconds=options.timer_seconds,
            destroyed_hours=options.destroyed_hours,
        )
        await stack.enter_async_context(timers.running())
        problems = Problems(clock)
        public = public_app(services, events, problems, options)
        yield ControlPlane(public, internal_app(services, problems, options), database, timers, services.runners)


def build_services(
    database: Database, bus: Bus, seal: Seal, *, clock: Clock, ids: IdSource, options: ControlPlaneOptions
) -> Services:
    """Every service, each given what it needs."""
    changes, job_hints, arrivals = (
        Wakeups(bus, clock, channel) for channel in (CHANNEL_SANDBOXES, CHANNEL_JOBS, CHANNEL_RUNNERS)
    )
    announcer = Announcer(bus, changes, job_hints)
    runners = Runners(database, clock, arrivals, lost_seconds=options.runner_lost_seconds)
    return Services(
        database=database,
        health=Health(database, bus),
        options=options,
        changes=changes,
        job_hints=job_hints,
        arrivals=arrivals,
        announcer=announcer,
        runners=runners,
        keys=ApiKeys(database, clock, ids, bus),
        organizations=Organizations(database),
        listing=Listing(database),
        sessions=SessionRecords(database),
        build_log=BuildLogs(database, clock, announcer=announcer, changes=changes),
        previews=Previews(database, clock, ids, seal=seal, announcer=announcer),
        ssh_accesses=SshAccesses(database, clock, ids),
        sandboxes=Sandboxes(
            database,
            clock,
            ids,
            seal=seal,
            runners=runners,
            announcer=announcer,
            changes=changes,
            quotas=Quotas(options.limits),
            region=options.region,
            wait_seconds=options.wait_seconds,
        ),
        dispatch=Dispatch(
            database, clock, ids, seal=seal, runners=runners, announcer=announcer, lease_seconds=options.lease_seconds
        ),
    )


def public_app(services: Services, events: EventGateway, problems: Problems, options: ControlPlaneOptions) -> App:
    """The public API behind its gate."""
    router = _router(PUBLIC_SLICES, services, problems, guard=key_guard(services.keys), max_body_bytes=MAX_BODY_BYTES)
    origins = Origins(
        public_url=options.public_url, allowed_hosts=options.allowed_hosts, trust_forwarded=options.trust_forwarded
    )
    return Gate(router, events.app, origins=origins, keys=services.keys, problems=problems)


def internal_app(services: Services, problems: Problems, options: ControlPlaneOptions) -> App:
    """The internal API. Nobody but our own parts can reach it, so hosts are not looked at."""
    guard = token_guard(options.internal_token)
    router = _router(INTERNAL_SLICES, services, problems, guard=guard, max_body_bytes=MAX_INTERNAL_BODY_BYTES)

    async def app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await answer_lifespan(receive, send)
        else:
            await router({**scope, "path": encoded_path(scope)}, receive, send)

    return app


def _router(
    slices: Sequence[Router], services: Services, problems: Problems, *, guard: Guard, max_body_bytes: int
) -> App:
    router: Any = Litestar(
        route_handlers=slices,
        dependencies=services.dependencies(),
        guards=[guard],
        exception_handlers={Exception: problems.handle},
        request_max_body_size=max_body_bytes,
        openapi_config=None,
        logging_config=None,
    )
    app: App = router
    return app


def _give(value: object) -> Callable[[], object]:
    return lambda: value
