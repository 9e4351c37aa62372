"""Which runtime this machine gets, and the removal of what runtimes hold. Called by the wiring.

The docker runtime is imported where it is chosen: with the engine's client a start takes a tenth of a second more.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sandyard.ids import RandomIds
from sandyard.keeping import keep_secret
from sandyard.settings import Settings
from sandyard_runner.runtime.contract import Runtime
from sandyard_runner.runtime.local.options import Isolation, LocalOptions, Network
from sandyard_runner.runtime.local.runtime import open_local_runtime
from sandyard_runner.volumes import Volumes
from sandyard_runner.wire import Enforcement

if TYPE_CHECKING:
    from sandyard_runner.runtime.docker import DockerOptions
    from sandyard_runner.runtime.docker.moving import Moving

Say = Callable[[str], None]
"""Takes one line for the person who started us."""


@asynccontextmanager
async def open_runtime(settings: Settings, *, keep_running: bool) -> AsyncIterator[Runtime]:
    """The runtime that was asked for; `auto` is docker when an engine answers, else local. Raises `RuntimeFailure`."""
    if await choose(settings) == "docker":
        from sandyard_runner.runtime.docker import open_docker_runtime

        async with open_docker_runtime(docker_options(settings)) as containers:
            yield containers
    else:
        async with open_local_runtime(local_options(settings, keep_running=keep_running)) as local:
            yield local


async def choose(settings: Settings) -> str:
    """`docker` or `local`."""
    if settings.runtime != "auto":
        return settings.runtime
    from sandyard_runner.runtime.docker import engine_answers

    return "local" if await asyncio.to_thread(engine_answers) else "docker"


def notes_on(runtime: Runtime) -> tuple[str, ...]:
    """What the runtime does not hold, for the person who starts it."""
    return tuple(
        f"{row.name}: {row.enforcement} ({row.detail})"
        for row in runtime.capabilities()
        if row.enforcement in (Enforcement.IGNORED, Enforcement.WATCHED)
    )


def docker_options(settings: Settings) -> "DockerOptions":
    """What the docker runtime is told."""
    from sandyard_runner.runtime.docker import DockerOptions

    return DockerOptions(
        installation=keep_secret(settings.data_dir, "installation", RandomIds().uuid),
        data_dir=settings.data_dir,
        doors_dir=settings.resolved_doors_dir(),
        host_folders=settings.host_folders,
        default_image=settings.default_image,
        debian_mirror=settings.debian_mirror,
        name_servers=settings.name_servers,
        oci_runtime=settings.oci_runtime,
    )


def local_options(settings: Settings, *, keep_running: bool) -> LocalOptions:
    """What the local runtime is told."""
    return LocalOptions(
        data_dir=settings.data_dir,
        doors_dir=settings.resolved_doors_dir(),
        isolation=Isolation(settings.isolation),
        network=Network(settings.network),
        name_servers=settings.name_servers,
        keep_running=keep_running,
        host_folders=settings.host_folders,
        local_builds=settings.local_builds,
    )


async def remove_everything(settings: Settings) -> list[str]:
    """Remove the sandboxes of this data directory from every runtime; one line for each thing removed."""
    lines: list[str] = []
    from sandyard_runner.runtime.docker import engine_answers
    from sandyard_runner.runtime.docker import remove_everything as remove_containers

    if (settings.data_dir / "installation").exists() and not await asyncio.to_thread(engine_answers):
        lines += await remove_containers(docker_options(settings))
    if _holds_local_sandboxes(settings.data_dir):
        async with open_local_runtime(local_options(settings, keep_running=True)) as local:
            for sandbox in await local.present():
                await local.remove(sandbox.sandbox_id)
                lines.append(f"removed sandbox {sandbox.sandbox_id}")
            for image in await local.images():
                await local.remove_image(image)
                lines.append(f"removed image {image}")
            await local.prune()
    volumes = Volumes(local_options(settings, keep_running=True).volumes_dir)
    for name in await asyncio.to_thread(volumes.names):
        await asyncio.to_thread(volumes.remove, name)
        lines.append(f"removed the content of volume {name}")
    return lines


@asynccontextmanager
async def open_containers(settings: Settings) -> "AsyncIterator[Moving | None]":
    """What the engine holds of this data directory, to be saved and loaded; `None` where no engine answers."""
    from sandyard_runner.runtime.docker import engine_answers, open_docker_runtime

    if await asyncio.to_thread(engine_answers) is not None:
        yield None
        return
    async with open_docker_runtime(docker_options(settings)) as containers:
        yield containers.moving


def has_used_an_engine(settings: Settings) -> bool:
    """Whether this data directory was ever used with an engine."""
    return (settings.data_dir / "installation").exists()


def _holds_local_sandboxes(data_dir: Path) -> bool:
    held = (data_dir / "sandboxes", data_dir / "images", data_dir / "layers")
    return any(path.is_dir() and any(path.iterdir()) for path in held)
