"""Every service of the control plane, each given what it needs; handlers ask for them by name."""

from collections.abc import Callable

import msgspec
from litestar.di import Provide

from sandyard.bus import Bus
from sandyard.clock import Clock
from sandyard.hosts import HostRules
from sandyard.ids import IdSource, RandomIds
from sandyard.virtual_clock import machine_of
from sandyard_api.access import provide_grant, provide_item_id, provide_key, provide_origin
from sandyard_api.api_keys.service import ApiKeys
from sandyard_api.bench.clock import ClockControl
from sandyard_api.bench.resetting import Resetting
from sandyard_api.config.service import Health
from sandyard_api.database import Database
from sandyard_api.dispatch.service import Dispatch
from sandyard_api.image_registry.app import RegistryApp
from sandyard_api.image_registry.clearing import ImageClearing
from sandyard_api.image_registry.credentials import ImageKeys
from sandyard_api.image_registry.service import ImageRegistry
from sandyard_api.image_registry.store import ImageStore
from sandyard_api.jobs.wire import CHANNEL_JOBS
from sandyard_api.metrics.service import Metrics
from sandyard_api.options import ControlPlaneOptions
from sandyard_api.organizations.service import Organizations
from sandyard_api.previews.service import Previews
from sandyard_api.quotas.service import Quotas
from sandyard_api.registries.service import Registries
from sandyard_api.runners.asking import RunnerClients
from sandyard_api.runners.service import CHANNEL_RUNNERS, Runners
from sandyard_api.sandboxes.announcing import Announcer
from sandyard_api.sandboxes.build_logs import BuildLogs
from sandyard_api.sandboxes.lineage import Lineage
from sandyard_api.sandboxes.listing import Listing
from sandyard_api.sandboxes.networking import Networking
from sandyard_api.sandboxes.repairs import Repairs
from sandyard_api.sandboxes.service import Sandboxes
from sandyard_api.sandboxes.snapshotting import Snapshotting
from sandyard_api.sealing.service import Seal
from sandyard_api.secrets.service import Secrets
from sandyard_api.sessions.service import SessionRecords
from sandyard_api.snapshots.build_logs import SnapshotLogs
from sandyard_api.snapshots.service import Snapshots
from sandyard_api.snapshots.telling import SnapshotTeller
from sandyard_api.snapshots.work import SnapshotWork
from sandyard_api.ssh_access.service import SshAccesses
from sandyard_api.storage.app import StorageApp
from sandyard_api.storage.clearing import ContextClearing
from sandyard_api.storage.credentials import StorageKeys
from sandyard_api.storage.external import ExternalStorage
from sandyard_api.storage.files import ObjectFiles
from sandyard_api.storage.service import Contexts
from sandyard_api.timers import Timers
from sandyard_api.volumes.service import Volumes
from sandyard_api.wakeups import Wakeups
from sandyard_api.warm_pools.claiming import WarmCreates
from sandyard_api.warm_pools.keeping import WarmKeeper
from sandyard_api.warm_pools.service import WarmPools

CHANNEL_SANDBOXES = "sandboxes"
"""Hint between replicas: a sandbox changed. Payload: its id."""


class Services(msgspec.Struct, frozen=True):
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
    clearing: ContextClearing
    image_registry: ImageRegistry
    registry_app: RegistryApp
    image_clearing: ImageClearing
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
    metrics: Metrics

    def dependencies(self) -> dict[str, Provide]:
        """As the router takes them."""
        functions: dict[str, Callable[..., object]] = {
            name: _give(getattr(self, name)) for name in self.__struct_fields__
        } | {
            "grant": provide_grant,
            "origin": provide_origin,
            "key": provide_key,
            "item_id": provide_item_id,
        }
        return {name: Provide(function, sync_to_thread=False) for name, function in functions.items()}


def build_services(
    database: Database,
    bus: Bus,
    seal: Seal,
    clients: RunnerClients,
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
    files = _object_files(options)
    external = ExternalStorage(options.external_storage, machine_of(clock)) if options.external_storage else None
    contexts = Contexts(files, external, StorageKeys(seal), clock, ids)
    clearing = ContextClearing(database, clock, contexts.files, hours=options.context_hours)
    hosts = HostRules.of(options.allowed_hosts, options.public_url)
    image_registry = ImageRegistry(_image_store(options), ImageKeys(seal), hosts, clock)
    image_clearing = ImageClearing(database, clock, image_registry.store, hours=options.context_hours)
    teller = SnapshotTeller(bus, changes)
    snapshot_work = SnapshotWork(
        database,
        clock,
        ids,
        registries=registries,
        image_registry=image_registry,
        teller=teller,
        lease_seconds=options.lease_seconds,
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
    timers = build_timers(database, clock, sandboxes, announcer, snapshot_work, clearing, image_clearing, options)
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
        storage=StorageApp(contexts, clock, ids, make_room=clearing.make_room),
        clearing=clearing,
        image_registry=image_registry,
        # Identifiers of uploads are not from the seed: a push would shift those of a run.
        registry_app=RegistryApp(image_registry, clock, RandomIds(), make_room=image_clearing.make_room),
        image_clearing=image_clearing,
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
            environments=clients,
        ),
        metrics=Metrics(database, runners, clients),
    )


def build_timers(
    database: Database,
    clock: Clock,
    sandboxes: Sandboxes,
    announcer: Announcer,
    snapshot_work: SnapshotWork,
    clearing: ContextClearing,
    image_clearing: ImageClearing,
    options: ControlPlaneOptions,
) -> Timers:
    """The timers, not yet running."""
    return Timers(
        database,
        clock,
        sandboxes=sandboxes,
        announcer=announcer,
        snapshot_work=snapshot_work,
        clearing=clearing,
        image_clearing=image_clearing,
        period_seconds=options.timer_seconds,
        destroyed_hours=options.destroyed_hours,
    )


def _object_files(options: ControlPlaneOptions) -> ObjectFiles | None:
    if options.storage_dir is None:
        return None
    return ObjectFiles(
        options.storage_dir,
        max_bytes=options.storage_max_bytes,
        max_object_bytes=options.storage_max_object_bytes,
    )


def _image_store(options: ControlPlaneOptions) -> ImageStore | None:
    if options.registry_dir is None:
        return None
    return ImageStore(options.registry_dir, max_bytes=options.registry_max_bytes)


def _give(value: object) -> Callable[[], object]:
    return lambda: value
