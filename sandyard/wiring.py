"""The one place that turns settings into running parts. Embedded is nothing but the default values (design.md 2)."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import structlog
from cryptography.fernet import Fernet

from sandyard import __version__
from sandyard.authority import authority_of
from sandyard.beside import beside
from sandyard.bus import Bus
from sandyard.bus.memory import MemoryBus
from sandyard.clock import SystemClock
from sandyard.host_keys import check_host_key, new_host_key
from sandyard.ids import IdSource, RandomIds, SeededIds
from sandyard.keeping import keep_secret
from sandyard.runtimes import open_runtime
from sandyard.serving import listen_tcp, listen_unix, serve, sockets_directory
from sandyard.settings import InvalidSetting, Settings
from sandyard.starting import uncollected
from sandyard.virtual_clock import VirtualClock
from sandyard_api.app import ControlPlane, open_control_plane
from sandyard_api.jobs.client import HttpControlPlane
from sandyard_api.options import ControlPlaneOptions
from sandyard_api.storage.s3_options import S3Options
from sandyard_proxy.app import SshListener, open_proxy
from sandyard_proxy.options import ProxyOptions
from sandyard_proxy.upstream import open_upstream
from sandyard_runner.app import Leave, RunnerOptions, open_runner
from sandyard_runner.client import HttpRunner
from sandyard_runner.runtime.contract import Runtime
from sandyard_runner.runtime.faulty import open_faulty

RUNNER_SECONDS = 30.0
"""How long a start waits for its own runner; beyond that requests find out, and are answered all the same."""

log = structlog.get_logger()


class Secrets(msgspec.Struct, frozen=True):
    """What the parts show each other and keep from everyone else."""

    api_key: str
    internal_token: str
    encryption_key: str


class Embedded(msgspec.Struct, frozen=True):
    """A whole Sandyard in this process."""

    url: str
    """Origin, without a path."""
    api_key: str
    runtime: Runtime
    ssh: str
    """What became of the SSH gateway, for the person who started us."""


def keep_secrets(settings: Settings, ids: IdSource) -> Secrets:
    """The settings' secrets, or random ones that the data directory keeps."""
    return Secrets(
        api_key=settings.api_key or keep_secret(settings.data_dir, "api-key", lambda: f"sy_{ids.token(40)}"),
        internal_token=settings.internal_token
        or keep_secret(settings.data_dir, "internal-token", lambda: ids.token(48)),
        encryption_key=settings.encryption_key
        or keep_secret(settings.data_dir, "encryption-key", lambda: Fernet.generate_key().decode("ascii")),
    )


@asynccontextmanager
async def open_bus(url: str) -> AsyncIterator[Bus]:
    """The bus of that URL. Raises `InvalidSetting` and `BusError`."""
    scheme = url.partition(":")[0]
    if scheme == "memory":
        yield MemoryBus()
    elif scheme in ("redis", "rediss", "unix"):
        # Imported only where it is asked for: the library is a seventh of the time until `up` is ready.
        from sandyard.bus.redis import RedisBus

        async with RedisBus.open(url) as bus:
            yield bus
    else:
        raise InvalidSetting(f"SANDYARD_BUS_URL is {url!r}; it takes memory:// or redis://host:port/0")


@asynccontextmanager
async def open_embedded(settings: Settings, *, leave: Leave, runtime: Runtime | None = None) -> AsyncIterator[Embedded]:
    """API, runner and proxy in this process, on one port; closed in reverse order.

    `runtime`: one that is open already, in place of the settings' choice; it stays open. One that cannot be opened is
    told of when the database is up to date.

    Between the parts loopback HTTP is used all the same, over unix sockets that only we can open: an in-process
    transport would answer only when a stream is over.
    """
    # What no user sees goes by the machine's own time, also while that of the API stands still.
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        starting = stack.enter_context(ExitStack())
        starting.enter_context(uncollected())
        public = listen_tcp(settings.host, settings.port)
        stack.callback(public.close)
        port = public.getsockname()[1]
        secure = open_secure(settings, stack)
        ssh, ssh_note = _try_ssh(settings)
        if ssh is not None:
            stack.callback(ssh.socket.close)
        secrets = keep_secrets(settings, RandomIds())
        sockets = stack.enter_context(sockets_directory())
        bus = await stack.enter_async_context(open_bus(settings.bus_url))
        keep = leave is Leave.RUNNING
        opened = open_runtime(settings, keep_running=keep) if runtime is None else _given(runtime)
        opening = await stack.enter_async_context(beside(opened))  # which waits for a trial sandbox meanwhile
        plane = await stack.enter_async_context(
            open_control_plane(
                database_url=settings.resolved_database_url(),
                bus=bus,
                clock=VirtualClock(),
                ids=id_source(settings),
                options=control_plane_options(
                    settings,
                    secrets,
                    https_port=secure.port if secure else None,
                    ssh_port=ssh.socket.getsockname()[1] if ssh else None,
                ),
            )
        )
        runtime = await stack.enter_async_context(open_faulty(await opening, bus))
        await stack.enter_async_context(
            serve(plane.internal_app, listen_unix(sockets / "internal.sock"), websockets=False)
        )
        internal = await stack.enter_async_context(
            HttpControlPlane(f"unix:{sockets / 'internal.sock'}", secrets.internal_token)
        )
        runner = await stack.enter_async_context(
            open_runner(
                runtime=runtime,
                control_plane=internal,
                bus=bus,
                clock=clock,
                options=runner_options(settings, secrets, leave, f"unix:{sockets / 'runner.sock'}"),
            )
        )
        await stack.enter_async_context(serve(runner.app, listen_unix(sockets / "runner.sock")))
        proxy = await stack.enter_async_context(
            open_proxy(
                control_plane_app=plane.app,
                control_plane=internal,
                runners=lambda url: HttpRunner(url, secrets.internal_token),
                bus=bus,
                clock=clock,
                options=proxy_options(settings),
                ssh=ssh,
            )
        )
        await _wait_for_runner(plane)
        await stack.enter_async_context(serve(proxy, public))
        if secure is not None:
            await stack.enter_async_context(serve(proxy, secure.listener, certificate=secure.certificate))
        starting.close()
        await stack.enter_async_context(plane.routers.preparing())
        yield Embedded(_origin(settings, port), secrets.api_key, runtime, ssh_note)


@asynccontextmanager
async def _given(runtime: Runtime) -> AsyncIterator[Runtime]:
    """Somebody else's, who closes it."""
    yield runtime


def id_source(settings: Settings) -> IdSource:
    """Random identifiers, or those of the seed."""
    return RandomIds() if settings.seed is None else SeededIds(settings.seed)


async def _wait_for_runner(plane: ControlPlane) -> None:
    """Until then the first requests would meet a control plane that knows no runner, or only what was before."""
    try:
        async with asyncio.timeout(RUNNER_SECONDS):
            await plane.runners.at_work()
    except TimeoutError:
        log.warning("runner_not_at_work", seconds=RUNNER_SECONDS)


class Secure(msgspec.Struct, frozen=True):
    """The https side of the public origin."""

    listener: socket.socket
    certificate: tuple[Path, Path]

    @property
    def port(self) -> int:
        """The port it took."""
        port: int = self.listener.getsockname()[1]
        return port


def open_secure(settings: Settings, stack: AsyncExitStack) -> Secure | None:
    """A listener for https with a fresh certificate; `None` where `sandyard trust` was not run."""
    authority = authority_of(settings.data_dir)
    if not authority.exists:
        return None
    from sandyard.issuing import issue_certificate

    certificate = issue_certificate(authority, extra_names=settings.allowed_hosts)
    listener = listen_tcp(settings.host, settings.https_port)
    stack.callback(listener.close)
    return Secure(listener, certificate)


def control_plane_options(
    settings: Settings, secrets: Secrets, *, https_port: int | None, ssh_port: int | None
) -> ControlPlaneOptions:
    """What the control plane is told of itself and of where clients find the origin over https, and SSH."""
    return ControlPlaneOptions(
        api_key=secrets.api_key,
        internal_token=secrets.internal_token,
        encryption_key=secrets.encryption_key,
        version=__version__,
        public_url=settings.public_url,
        allowed_hosts=settings.allowed_hosts,
        trust_forwarded=settings.trust_forwarded,
        limits=settings.limits,
        host_folders=settings.host_folders,
        preview_warning=settings.preview_warning,
        rate_limits=settings.rate_limits,
        warm_pool=settings.warm_pool,
        storage_dir=settings.data_dir / "objects",
        storage_max_bytes=settings.storage_gib << 30,
        context_hours=settings.context_hours,
        registry_dir=settings.data_dir / "registry",
        registry_max_bytes=settings.registry_gib << 30,
        external_storage=external_storage(settings),
        storage_https_port=https_port,
        ssh_port=ssh_port,
    )


def external_storage(settings: Settings) -> S3Options | None:
    """Another object storage than our own; `None` where none is named."""
    if not settings.s3_endpoint:
        return None
    return S3Options(
        endpoint=settings.s3_endpoint.rstrip("/"),
        bucket=settings.s3_bucket or "",
        region=settings.s3_region,
        access_key=settings.s3_access_key or "",
        secret_key=settings.s3_secret_key or "",
        session_token=settings.s3_session_token or "",
        role_arn=settings.s3_role_arn or "",
        sts_endpoint=(settings.s3_sts_endpoint or "").rstrip("/"),
    )


def runner_options(settings: Settings, secrets: Secrets, leave: Leave, url: str) -> RunnerOptions:
    """What a runner is told."""
    return RunnerOptions(runner_id=settings.runner_id, url=url, internal_token=secrets.internal_token, leave=leave)


def proxy_options(settings: Settings) -> ProxyOptions:
    """What a proxy is told."""
    return ProxyOptions(
        doors_dir=settings.resolved_doors_dir(),
        allowed_hosts=settings.allowed_hosts,
        public_url=settings.public_url,
        trust_forwarded=settings.trust_forwarded,
        preview_warning=settings.preview_warning,
        version=__version__,
        journal=settings.journal,
    )


def listen_ssh(settings: Settings, port: int) -> SshListener:
    """The SSH gateway's socket and key. Raises `OSError` and `InvalidSetting`."""
    key = settings.ssh_host_key or keep_secret(settings.data_dir, "ssh-host-key", new_host_key)
    check_host_key(key)
    return SshListener(listen_tcp(settings.host, port), key)


def _try_ssh(settings: Settings) -> tuple[SshListener | None, str]:
    """The SSH gateway and a sentence about it: Sandyard is of use without, where the port is somebody else's."""
    port = settings.resolved_ssh_port()
    if port is None:
        return None, "the SSH gateway is off (SANDYARD_SSH_PORT)"
    try:
        ssh = listen_ssh(settings, port)
    except OSError as error:
        return None, f"no SSH gateway: {error.strerror}; SANDYARD_SSH_PORT names another port"
    host, port = ssh.socket.getsockname()[:2]
    return ssh, f"SSH gateway at {host}:{port}"


def _origin(settings: Settings, port: int) -> str:
    if settings.public_url:
        return settings.public_url.rstrip("/")
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::", "") else settings.host  # noqa: S104  compared, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@asynccontextmanager
async def open_api(settings: Settings) -> AsyncIterator[None]:
    """The control plane alone, for the distributed form."""
    async with AsyncExitStack() as stack:
        secrets = keep_secrets(settings, RandomIds())
        bus = await stack.enter_async_context(open_bus(settings.bus_url))
        plane = await stack.enter_async_context(
            open_control_plane(
                database_url=settings.resolved_database_url(),
                bus=bus,
                clock=VirtualClock(),
                ids=id_source(settings),
                # Another process serves https; what it listens on is told by the setting alone.
                options=control_plane_options(
                    settings, secrets, https_port=settings.https_port or None, ssh_port=settings.ssh_port or None
                ),
            )
        )
        await stack.enter_async_context(serve(plane.internal_app, _listen(settings.internal_listen), websockets=False))
        await stack.enter_async_context(serve(plane.app, listen_tcp(settings.host, settings.port)))
        await stack.enter_async_context(plane.routers.preparing())
        yield


@asynccontextmanager
async def open_runner_process(settings: Settings, *, leave: Leave) -> AsyncIterator[None]:
    """One runner alone, for the distributed form."""
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        secrets = keep_secrets(settings, RandomIds())
        bus = await stack.enter_async_context(open_bus(settings.bus_url))
        real = await stack.enter_async_context(open_runtime(settings, keep_running=leave is Leave.RUNNING))
        runtime = await stack.enter_async_context(open_faulty(real, bus))
        internal = await stack.enter_async_context(HttpControlPlane(settings.internal_url, secrets.internal_token))
        runner = await stack.enter_async_context(
            open_runner(
                runtime=runtime,
                control_plane=internal,
                bus=bus,
                clock=clock,
                options=runner_options(settings, secrets, leave, settings.runner_url),
            )
        )
        await stack.enter_async_context(serve(runner.app, _listen(settings.runner_listen)))
        yield


@asynccontextmanager
async def open_proxy_process(settings: Settings) -> AsyncIterator[None]:
    """One proxy alone, for the distributed form."""
    async with AsyncExitStack() as stack:
        secrets = keep_secrets(settings, RandomIds())
        bus = await stack.enter_async_context(open_bus(settings.bus_url))
        internal = await stack.enter_async_context(HttpControlPlane(settings.internal_url, secrets.internal_token))
        ssh = listen_ssh(settings, settings.ssh_port) if settings.ssh_port else None
        if ssh is not None:
            stack.callback(ssh.socket.close)
        upstream = await stack.enter_async_context(open_upstream(settings.control_plane_url))
        proxy = await stack.enter_async_context(
            open_proxy(
                control_plane_app=upstream,
                control_plane=internal,
                runners=lambda url: HttpRunner(url, secrets.internal_token),
                bus=bus,
                clock=SystemClock(),
                options=proxy_options(settings),
                ssh=ssh,
            )
        )
        await stack.enter_async_context(serve(proxy, listen_tcp(settings.host, settings.port)))
        if (secure := open_secure(settings, stack)) is not None:
            await stack.enter_async_context(serve(proxy, secure.listener, certificate=secure.certificate))
        yield


def _listen(address: str) -> Any:
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        raise InvalidSetting(f"{address!r} is not host:port")
    return listen_tcp(host.strip("[]"), int(port))
