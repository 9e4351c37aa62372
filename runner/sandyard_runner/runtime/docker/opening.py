"""Opening the docker runtime, and removing everything of ours from the engine."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import structlog
from docker.errors import NotFound

from sandyard_runner.daemon_bundle import Bundle, ensure_bundle
from sandyard_runner.errors import RuntimeFailure
from sandyard_runner.runtime.docker import door
from sandyard_runner.runtime.docker.broker import Broker
from sandyard_runner.runtime.docker.departure import Departure, Dependents, watch_dependents
from sandyard_runner.runtime.docker.egress import Egress
from sandyard_runner.runtime.docker.engine import Api, Engine, open_client, open_engine
from sandyard_runner.runtime.docker.events import EventReader
from sandyard_runner.runtime.docker.failures import Missing
from sandyard_runner.runtime.docker.helper import run_helper
from sandyard_runner.runtime.docker.images import Images, own_reference
from sandyard_runner.runtime.docker.links import remove_links
from sandyard_runner.runtime.docker.mounting import remove_volume
from sandyard_runner.runtime.docker.network import Rules, ensure_network, remove_network
from sandyard_runner.runtime.docker.options import LABEL_IMAGE, LABEL_INSTALLATION, LABEL_SANDBOX, DockerOptions
from sandyard_runner.runtime.docker.runtime import DockerRuntime
from sandyard_runner.runtime.docker.surroundings import OwnContainer, find_own_container, path_on_engine
from sandyard_runner.volumes import Volumes

log = structlog.get_logger(__name__)

REMOVALS_AT_ONCE = 4


@asynccontextmanager
async def open_docker_runtime(options: DockerOptions) -> AsyncIterator[DockerRuntime]:
    """The runtime, with its network, its rules and the bundle in place. Raises `RuntimeFailure`, `BundleError`.

    At the end sandboxes stay as they are, unless the stack or the volumes that remember them go away with us: then they
    are stopped or removed. Where no sandbox is left, the network and the rules go, too.
    """
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(open_engine())
        own = await find_own_container(engine)
        path_on_engine(options.doors_dir, own)
        rules = _rules(engine, options, own)
        bundle, version, *_ = await asyncio.gather(
            asyncio.to_thread(_prepare_files, options),
            engine.call("ask for its version", lambda api: api.version()),
            ensure_network(engine, options),
        )
        egress = Egress(engine, options, rules)
        stack.push_async_callback(egress.close)
        await egress.open()
        images = Images(engine, options, arch=version["Arch"])
        runtime = DockerRuntime(engine, options, bundle=bundle, images=images, rules=rules, egress=egress, own=own)
        reader = EventReader(
            runtime.take_event,
            actions=["die", "destroy"],
            labels=[f"{LABEL_INSTALLATION}={options.installation}", LABEL_SANDBOX],
        )
        stack.push_async_callback(reader.close)
        await runtime.links.open()
        await reader.start()
        watching = asyncio.create_task(runtime.disk.run(), name="disk")
        stack.push_async_callback(_end, watching)
        dependents = await stack.enter_async_context(watch_dependents(engine, own))
        try:
            yield runtime
        finally:
            await runtime.close()
            await _say_farewell(engine, options, runtime, dependents, rules)


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _prepare_files(options: DockerOptions) -> Bundle:
    options.doors_dir.mkdir(parents=True, exist_ok=True)
    # Keeps the users of this machine away from doors; the directories below are open to any user of their sandbox.
    options.doors_dir.chmod(0o700)
    return ensure_bundle(options.data_dir / "bundles")


def _rules(engine: Engine, options: DockerOptions, own: OwnContainer | None) -> Rules:
    helpers = [own.image] if own else [own_reference()]
    broker = Broker(engine, options, own) if own else None
    return Rules(engine, options, helper_images=helpers, broker=broker)


async def _say_farewell(
    engine: Engine, options: DockerOptions, runtime: DockerRuntime, dependents: Dependents, rules: Rules
) -> None:
    """What is done at the very end, by what goes away with us."""
    try:
        departure = await dependents.departure()
        log.info("runtime_closing", departs=departure.value)
        present = [sandbox.sandbox_id for sandbox in await runtime.present()]
        if departure is Departure.EVERYTHING:
            await _each(runtime.remove, present)
            await _remove_kept_images(engine, options)
            present = []
        elif departure is Departure.STACK:
            await _each(runtime.stop, present)
            await dependents.remove_volumes()
        if not present:
            await remove_links(engine, options)
        if not present and await remove_network(engine, options):
            await rules.remove()
    except RuntimeFailure as failure:
        log.warning("runtime_left_unclean", reason=failure.message)
    finally:
        if rules.broker is not None:
            await rules.broker.close()


async def remove_everything(options: DockerOptions) -> list[str]:
    """Remove every container, network and volume that carries this installation's label, and the rules.

    Gives one line for each thing removed. May be repeated. Of the images those go that builds or sandboxes were made
    into; pulled ones and that of the default snapshot stay: they are a cache.
    """
    async with open_engine() as engine:
        own = await find_own_container(engine)
        label = {"label": f"{LABEL_INSTALLATION}={options.installation}"}
        found = await engine.call("list the containers", lambda api: api.containers(all=True, filters=label))
        await _each(lambda container: _remove_container(engine, container), [item["Id"] for item in found])
        lines = [f"removed container {_name_of(item)}" for item in found]
        await _remove_leftover_doors(engine, options, own)
        lines += await _remove_volumes(engine, options, own)
        lines += [f"removed network {name}" for name in await remove_links(engine, options)]
        if await remove_network(engine, options):
            lines.append(f"removed network {options.network}")
            await _rules(engine, options, own).remove()
        lines += await _remove_kept_images(engine, options)
        volumes = await engine.call("list the volumes", lambda api: api.volumes(filters=label))
        for name in [volume["Name"] for volume in volumes["Volumes"] or []]:
            await engine.call("remove a volume", partial(_remove_volume, name=name))
            lines.append(f"removed volume {name}")
        return lines


async def _remove_volumes(engine: Engine, options: DockerOptions, own: OwnContainer | None) -> list[str]:
    volumes = Volumes(options.volumes_dir)
    names = await asyncio.to_thread(volumes.names)
    for name in names:
        await remove_volume(engine, options, own, volumes, name)
    return [f"removed the content of volume {name}" for name in names]


async def _remove_kept_images(engine: Engine, options: DockerOptions) -> list[str]:
    label = {"label": f"{LABEL_IMAGE}={options.installation}"}
    found = await engine.call("list the images", lambda api: api.images(filters=label))
    names = [name for item in found for name in _names_of(item)]
    for name in names:
        await engine.call("remove an image", partial(_remove_image, name=name))
    return [f"removed image {name}" for name in names]


def _names_of(listed: dict[str, Any]) -> list[str]:
    """By what an image is removed: each of its names, or its id when it has none any more."""
    return [name for name in listed["RepoTags"] or [] if name != "<none>:<none>"] or [listed["Id"]]


def _remove_image(api: Api, name: str) -> None:
    with contextlib.suppress(NotFound):  # gone with the image that stood on it
        api.remove_image(name, force=True)


def _remove_volume(api: Api, name: str) -> None:
    api.remove_volume(name, force=True)


def _name_of(listed: dict[str, Any]) -> str:
    return str(listed["Labels"].get(LABEL_SANDBOX) or listed["Id"][:12])


async def _remove_container(engine: Engine, container: str) -> None:
    try:
        await engine.call("remove a container", lambda api: api.remove_container(container, v=True, force=True))
    except Missing:
        log.debug("already_removed", container=container)


async def _remove_leftover_doors(engine: Engine, options: DockerOptions, own: OwnContainer | None) -> None:
    """What a sandbox's root left in its door directory, when we are not root ourselves: the engine removes it."""
    if not options.doors_dir.is_dir() or not door.leftovers(options.doors_dir):
        return
    mount = {"Type": "bind", "Source": path_on_engine(options.doors_dir, own), "Target": "/doors"}
    try:
        await run_helper(
            engine,
            options,
            own.image if own else options.default_image or own_reference(),
            ["sh", "-c", f"rm -rf /doors/{door.DISCARDED}*"],
            doing="remove old doors",
            host={"NetworkMode": "none", "Mounts": [mount]},
        )
    except Missing:
        log.warning("old_doors_kept", directory=str(options.doors_dir))


async def _each(act: Callable[[str], Awaitable[None]], names: Sequence[str]) -> None:
    """`act` on each, a few at a time; a failure of one does not keep the others."""
    gate = asyncio.Semaphore(REMOVALS_AT_ONCE)

    async def one(name: str) -> None:
        async with gate:
            await act(name)

    for name, result in zip(names, await asyncio.gather(*map(one, names), return_exceptions=True), strict=True):
        if isinstance(result, BaseException):
            log.warning("not_removed", name=name, reason=str(result))


def engine_answers() -> str | None:
    """`None` when an engine answers now, else why not; blocks for a moment. For choosing a runtime and for `doctor`."""

    try:
        open_client(timeout_seconds=3).close()
    except RuntimeFailure as failure:
        return failure.message
    return None
