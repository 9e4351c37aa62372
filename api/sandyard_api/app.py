"""Opening the control plane: the ordered list of slices, the start and end of its tasks, and both ASGI applications."""

from collections.abc import AsyncIterator, MutableMapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec

from sandyard.bus import Bus
from sandyard.clock import Clock
from sandyard.ids import IdSource
from sandyard.virtual_clock import VirtualClock
from sandyard_api.access import key_guard, token_guard
from sandyard_api.api_keys import routes as api_key_routes
from sandyard_api.api_keys.service import keep_owner_key
from sandyard_api.asgi import App
from sandyard_api.bench import routes as bench_routes
from sandyard_api.bench.resetting import begin_seed
from sandyard_api.config import routes as config_routes
from sandyard_api.database import Database, open_database
from sandyard_api.dispatch import routes as dispatch_routes
from sandyard_api.events.gateway import EventGateway
from sandyard_api.gate import Gate, answer_lifespan, encoded_path
from sandyard_api.image_registry import routes as image_registry_routes
from sandyard_api.metrics import routes as metric_routes
from sandyard_api.options import ControlPlaneOptions
from sandyard_api.organizations import routes as organization_routes
from sandyard_api.organizations.service import keep_default_organization
from sandyard_api.origins import Origins
from sandyard_api.previews import routes as preview_routes
from sandyard_api.problems import Problems
from sandyard_api.rates.service import RateLimits
from sandyard_api.regions import routes as region_routes
from sandyard_api.registries import routes as registry_routes
from sandyard_api.routing import Routers, Slice, build_router
from sandyard_api.runners import routes as runner_routes
from sandyard_api.runners.asking import RunnerClients
from sandyard_api.runners.service import Runners
from sandyard_api.sandboxes import inspection as inspection_routes
from sandyard_api.sandboxes import routes as sandbox_routes
from sandyard_api.sealing.service import Seal, check_key
from sandyard_api.secrets import routes as secret_routes
from sandyard_api.services import Services, build_services
from sandyard_api.sessions import routes as session_routes
from sandyard_api.snapshots import routes as snapshot_routes
from sandyard_api.ssh_access import routes as ssh_access_routes
from sandyard_api.storage import routes as storage_routes
from sandyard_api.timers import Timers
from sandyard_api.users import routes as user_routes
from sandyard_api.volumes import routes as volume_routes
from sandyard_api.warm_pools import routes as warm_pool_routes
from sandyard_api.warm_pools.keeping import WarmKeeper
from sandyard_migrations.upgrade import upgrade

MAX_BODY_BYTES = 4 * 1024 * 1024
MAX_INTERNAL_BODY_BYTES = 64 * 1024 * 1024

PUBLIC_SLICES = (
    config_routes.SLICE,
    api_key_routes.SLICE,
    organization_routes.SLICE,
    organization_routes.OF_SANDBOXES,
    user_routes.SLICE,
    region_routes.SLICE,
    sandbox_routes.SLICE,
    preview_routes.SLICE,
    ssh_access_routes.SLICE,
    inspection_routes.SLICE,
    session_routes.SLICE,
    metric_routes.SLICE,
    runner_routes.SLICE,
    snapshot_routes.SLICE,
    registry_routes.SLICE,
    image_registry_routes.SLICE,
    secret_routes.SLICE,
    storage_routes.SLICE,
    volume_routes.SLICE,
    warm_pool_routes.SLICE,
    bench_routes.SLICE,
)
INTERNAL_SLICES = (dispatch_routes.SLICE,)


class ControlPlane(msgspec.Struct, frozen=True):
    """An open control plane."""

    app: App
    """Public: `/api`, `/api/socket.io`, `/_sandyard`. Serve it with WebSockets on."""
    routers: Routers
    """What is behind it; to be prepared once it is served."""
    internal_app: App
    """For runners and proxies only: `/internal`."""
    database: Database
    timers: Timers
    runners: Runners
    warm_keeper: WarmKeeper


@asynccontextmanager
async def open_control_plane(
    *, database_url: str, bus: Bus, clock: Clock, ids: IdSource, options: ControlPlaneOptions
) -> AsyncIterator[ControlPlane]:
    """Upgrade the database, start timers and event sockets, and close them in reverse order. Serving is the caller's.

    Raises `UnusableDatabase` and `BusError` when database or bus cannot be had, and `WrongKey`.
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
        await begin_seed(database, ids)
        clients = await stack.enter_async_context(RunnerClients(options.internal_token))
        services = build_services(database, bus, seal, clients, clock=clock, ids=ids, options=options)
        await services.snapshots.keep_general()
        if options.warm_pool:
            await services.warm_pools.keep_shared(options.default_snapshot, options.warm_pool)
        else:
            await services.warm_pools.end_shared()
        if isinstance(clock, VirtualClock):
            await stack.enter_async_context(services.clock_control.running())
        for hints in (services.changes, services.job_hints, services.arrivals):
            await stack.enter_async_context(hints.listening())
        events = EventGateway(bus, services.keys)
        await stack.enter_async_context(events.running())
        await stack.enter_async_context(services.timers.running())
        await stack.enter_async_context(services.warm_keeper.running())
        problems = Problems(clock)
        routers = public_routers(services, problems, clock, options)
        public = public_app(routers, services, events, problems, options)
        inner = internal_app(services, problems, options)
        yield ControlPlane(public, routers, inner, database, services.timers, services.runners, services.warm_keeper)


def public_routers(services: Services, problems: Problems, clock: Clock, options: ControlPlaneOptions) -> Routers:
    """The public API."""
    given = services.dependencies()
    guard = key_guard(services.keys, RateLimits(options.rate_limits or {}, clock))

    def build(slices: Sequence[Slice]) -> App:
        return build_router(slices, given, problems, guard=guard, max_body_bytes=MAX_BODY_BYTES)

    return Routers(PUBLIC_SLICES, build)


def public_app(
    routers: Routers, services: Services, events: EventGateway, problems: Problems, options: ControlPlaneOptions
) -> App:
    """The public API behind its gate."""
    origins = Origins(
        public_url=options.public_url, allowed_hosts=options.allowed_hosts, trust_forwarded=options.trust_forwarded
    )
    return Gate(
        routers,
        events.app,
        services.storage,
        services.registry_app,
        origins=origins,
        keys=services.keys,
        problems=problems,
    )


def internal_app(services: Services, problems: Problems, options: ControlPlaneOptions) -> App:
    """The internal API. Nobody but our own parts can reach it, so hosts are not looked at."""
    router = build_router(
        INTERNAL_SLICES,
        services.dependencies(),
        problems,
        guard=token_guard(options.internal_token),
        max_body_bytes=MAX_INTERNAL_BODY_BYTES,
    )

    async def app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await answer_lifespan(receive, send)
        else:
            await router({**scope, "path": encoded_path(scope)}, receive, send)

    return app
