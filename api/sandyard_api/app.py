"""Building the control plane: its services, the ordered list of slices, and both ASGI applications."""

from collections.abc import AsyncIterator, Callable, MutableMapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from litestar import Litestar, Router
from litestar.di import Provide

from sandyard.bus import Bus
from sandyard.clock import Clock
from sandyard.ids import IdSource, RandomIds
from sandyard.virtual_clock import VirtualClock, machine_of
from sandyard_api.access import Guard, key_guard, provide_grant, provide_key, provide_origin, token_guard
from sandyard_api.api_keys import routes as api_key_routes
from sandyard_api.api_keys.service import ApiKeys, keep_owner_key
from sandyard_api.bench import routes as bench_routes
from sandyard_api.bench.clock import ClockControl
from sandyard_api.bench.resetting import Resetting, begin_seed
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
from sandyard_api.rates.service import RateLimits
from sandyard_api.regions import routes as region_routes
from sandyard_api.registries import routes as registry_routes
from sandyard_api.registries.service import Registries
from sandyard_api.runners import routes as runner_routes
from sandyard_api.runners.service import CHANNEL_RUNNERS, Runners
from sandyard_api.sandboxes import inspection as inspection_routes
from sandyard_api.sandboxes import routes as sandbox_routes
from sandyard_api.sandboxes.announcing import Announcer
from sandyard_api.sandboxes.build_logs import BuildLogs
from sandyard_api.sandboxes.lineage import Lineage
from sandyard_api.sandboxes.listing import Listing
from sandyard_api.sandboxes.networking import Networking
from sandyard_api.sandboxes.repairs import Repairs
from sandyard_api.sandboxes.service import Sandboxes
from sandyard_api.sandboxes.snapshotting import Snapshotting
from sandyard_api.sealing.service import Seal, check_key
from sandyard_api.secrets import routes as secret_routes
from sandyard_api.secrets.service import Secrets
from sandyard_api.sessions import routes as session_routes
from sandyard_api.sessions.service import SessionRecords
from sandyard_api.snapshots import routes as snapshot_routes
from sandyard_api.snapshots.build_logs import SnapshotLogs
from sandyard_api.snapshots.service import Snapshots
from sandyard_api.snapshots.telling import SnapshotTeller
from sandyard_api.snapshots.work import SnapshotWork
from sandyard_api.ssh_access import routes as ssh_access_routes
from sandyard_api.ssh_access.service import SshAccesses
from sandyard_api.storage import routes as storage_routes
from sandyard_api.storage.app import StorageApp
from sandyard_api.storage.credentials import StorageKeys
from sandyard_api.storage.files import ObjectFiles
from sandyard_api.storage.service import Contexts
from sandyard_api.timers import Timers
from sandyard_api.users import routes as user_routes
from sandyard_api.volumes import routes as volume_routes
from sandyard_api.volumes.service import Volumes
from sandyard_api.wakeups import Wakeups
from sandyard_api.warm_pools import routes as warm_pool_routes
from sandyard_api.warm_pools.claiming import Environments, RunnerEnvironments, WarmCreates
from sandyard_api.warm_pools.keeping import WarmKeeper
from sandyard_api.warm_pools.service import WarmPools
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
    snapshot_routes.ROUTER,
    registry_routes.ROUTER,
    secret_routes.ROUTER,
    storage_routes.ROUTER,
    volume_routes.ROUTER,
    warm_pool_routes.ROUTER,
    bench_routes.ROUTER,
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
    warm_keeper: WarmKeeper


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
    lineage: Lineage
    repairs: Repairs
    snapshotting: Snapshotting
    networking: Networking
    secrets: Secrets
    listing: Listing
    build_log: BuildLogs
    previews: Previews
    snapshots: Snapshots
    snapshot_work: SnapshotWork
    snapshot_logs: SnapshotLogs
    registries: Registries
    contexts: Contexts
    volumes: Volumes
    storage: StorageApp
    ssh_accesses: SshAccesses
    sessions: SessionRecords
    dispatch: Dispatch
    job_hints: Wakeups
    changes: Wakeups
    arrivals: Wakeups
    announcer: Announcer
    timers: Timers
    clock_control: ClockControl
    resetting: Resetting
    warm_pools: WarmPools
    warm_keeper: WarmKeeper
    warm_creates: WarmCreates

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
        await begin_seed(database, ids)
        environments = await stack.enter_async_context(RunnerEnvironments(options.internal_token))
        services = build_services(database, bus, seal, environments, clock=clock, ids=ids, options=options)
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
        public = public_app(services, events, problems, clock, options)
        inner = internal_app(services, problems, options)
        yield ControlPlane(public, inner, database, services.timers, services.runners, services.warm_keeper)


def build_services(
    database: Database,
    bus: Bus,
    seal: Seal,
    environments: Environments,
    *,
    clock: Clock,
    ids: IdSource,
    options: ControlPlaneOptions,
) -> Services:
    """Every service, each given what it needs."""
    changes, job_hints, arrivals = (
        Wakeups(bus, clock, channel) for channel in (CHANNEL_SANDBOXES, CHANNEL_JOBS, CHANNEL_RUNNERS)
    )
    announcer = Announcer(bus, changes, job_hints)
    quotas = Quotas(options.limits)
    runners = Runners(database, machine_of(clock), arrivals, lost_seconds=options.runner_lost_seconds)
    registries = Registries(database, clock, ids, seal)
    contexts = Contexts(_object_files(options), StorageKeys(seal), clock, ids)
    teller = SnapshotTeller(bus, changes)
    snapshot_work = SnapshotWork(
        database, clock, ids, registries=registries, teller=teller, lease_seconds=options.lease_seconds
    )
    snapshots = Snapshots(
        database,
        clock,
        ids,
        runners=runners,
        contexts=contexts,
        quotas=quotas,
        teller=teller,
        jobs=job_hints,
        region=options.region,
        wait_seconds=options.wait_seconds,
    )
    volumes = Volumes(database, clock, ids, bus, quotas=quotas, host_folders=options.host_folders)
    keys = ApiKeys(database, clock, ids, bus)
    secrets = Secrets(database, clock, ids, seal)
    sandboxes = Sandboxes(
        database,
        clock,
        ids,
        seal=seal,
        runners=runners,
        announcer=announcer,
        changes=changes,
        quotas=quotas,
        snapshots=snapshots,
        contexts=contexts,
        volumes=volumes,
        secrets=secrets,
        region=options.region,
        wait_seconds=options.wait_seconds,
    )
    warm_keeper = WarmKeeper(
        database,
        clock,
        sandboxes=sandboxes,
        announcer=announcer,
        changes=changes,
        period_seconds=options.timer_seconds,
        retry_seconds=options.warm_retry_seconds,
    )
    timers = build_timers(database, clock, sandboxes, announcer, snapshot_work, options)
    return Services(
        database=database,
        health=Health(database, bus),
        options=options,
        changes=changes,
        job_hints=job_hints,
        arrivals=arrivals,
        announcer=announcer,
        runners=runners,
        keys=keys,
        organizations=Organizations(database),
        listing=Listing(database),
        sessions=SessionRecords(database),
        snapshots=snapshots,
        snapshot_work=snapshot_work,
        snapshot_logs=SnapshotLogs(database, clock, changes),
        registries=registries,
        contexts=contexts,
        volumes=volumes,
        storage=StorageApp(contexts, clock, ids),
        build_log=BuildLogs(database, clock, announcer=announcer, changes=changes),
        previews=Previews(database, clock, ids, seal=seal, announcer=announcer),
        ssh_accesses=SshAccesses(database, clock, ids),
        sandboxes=sandboxes,
        lineage=Lineage(database, sandboxes),
        repairs=Repairs(sandboxes, clock, quotas),
        snapshotting=Snapshotting(sandboxes, snapshots),
        networking=Networking(
            database, clock, sandboxes=sandboxes, runners=runners, changes=changes, wait_seconds=options.wait_seconds
        ),
        secrets=secrets,
        # Leases are nobody's to see: drawn from a seed, each poll of a runner would shift the identifiers behind it.
        dispatch=Dispatch(
            database,
            clock,
            RandomIds(),
            seal=seal,
            runners=runners,
            announcer=announcer,
            snapshot_work=snapshot_work,
            secrets=secrets,
            lease_seconds=options.lease_seconds,
        ),
        timers=timers,
        clock_control=ClockControl(
            database, bus, clock, timers=timers, snapshots=snapshot_work, changes=changes, keys=keys
        ),
        resetting=Resetting(database, bus, clock, ids, sandboxes=sandboxes, changes=changes, keys=keys),
        # Identifiers of pools are not from the seed: the setting's own pool would shift those of a run.
        warm_pools=WarmPools(
            database,
            clock,
            RandomIds(),
            snapshots=snapshots,
            quotas=quotas,
            changes=changes,
            region=options.region,
        ),
        warm_keeper=warm_keeper,
        warm_creates=WarmCreates(
            database,
            clock,
            ids,
            seal=seal,
            sandboxes=sandboxes,
            snapshots=snapshots,
            runners=runners,
            quotas=quotas,
            announcer=announcer,
            keeper=warm_keeper,
            environments=environments,
        ),
    )


def build_timers(
    database: Database,
    clock: Clock,
    sandboxes: Sandboxes,
    announcer: Announcer,
    snapshot_work: SnapshotWork,
    options: ControlPlaneOptions,
) -> Timers:
    """The timers, not yet running."""
    return Timers(
        database,
        clock,
        sandboxes=sandboxes,
        announcer=announcer,
        snapshot_work=snapshot_work,
        period_seconds=options.timer_seconds,
        destroyed_hours=options.destroyed_hours,
    )


def public_app(
    services: Services, events: EventGateway, problems: Problems, clock: Clock, options: ControlPlaneOptions
) -> App:
    """The public API behind its gate."""
    rates = RateLimits(options.rate_limits or {}, clock)
    router = _router(
        PUBLIC_SLICES, services, problems, guard=key_guard(services.keys, rates), max_body_bytes=MAX_BODY_BYTES
    )
    origins = Origins(
        public_url=options.public_url, allowed_hosts=options.allowed_hosts, trust_forwarded=options.trust_forwarded
    )
    return Gate(router, events.app, services.storage, origins=origins, keys=services.keys, problems=problems)


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


def _object_files(options: ControlPlaneOptions) -> ObjectFiles | None:
    if options.storage_dir is None:
        return None
    return ObjectFiles(
        options.storage_dir,
        max_bytes=options.storage_max_bytes,
        max_object_bytes=options.storage_max_object_bytes,
    )


def _give(value: object) -> Callable[[], object]:
    return lambda: value
