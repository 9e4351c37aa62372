"""Shared folders of containers: bound by path, and then looked at, before any user code runs."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from sandyard_api.jobs.wire import SandboxSpec
from sandyard_runner.door_http import Door, ask_json
from sandyard_runner.errors import RuntimeFailure, Unsupported
from sandyard_runner.runtime.docker.container import Folder
from sandyard_runner.runtime.docker.engine import Engine
from sandyard_runner.runtime.docker.failures import Missing
from sandyard_runner.runtime.docker.helper import run_helper
from sandyard_runner.runtime.docker.images import own_reference
from sandyard_runner.runtime.docker.options import DockerOptions
from sandyard_runner.runtime.docker.surroundings import OwnContainer, path_on_engine
from sandyard_runner.volumes import DISCARDED, Place, Volumes, plain


class Mounting:
    """Implements `CanMount` of the runtime's contract, for `DockerRuntime`."""

    _engine: Engine
    _options: DockerOptions
    _own: OwnContainer | None
    _volumes: Volumes

    async def volumes(self) -> Sequence[str]:
        """Ids of the volumes that have a folder here."""
        return await asyncio.to_thread(self._volumes.names)

    async def remove_volume(self, volume_id: str) -> None:
        """Remove its folder; what we may not touch, the engine removes. Raises `RuntimeFailure`."""
        await remove_volume(self._engine, self._options, self._own, self._volumes, volume_id)

    async def _places(self, spec: SandboxSpec) -> list[Place]:
        places = await asyncio.to_thread(self._volumes.places, spec.mounts)
        for place in places:
            if place.parts and place.identity is None:
                raise Unsupported(f"{place.target}: folders below a volume's root can only be mounted on Linux")
        return places

    def _folders(self, places: Sequence[Place]) -> list[Folder]:
        return [Folder(path_on_engine(Path(place.path), self._own), place.target, place.read_only) for place in places]

    async def _check_mounted(self, door: Door, places: Sequence[Place]) -> None:
        """Whether it was the folders we looked at that the engine bound. Raises `RuntimeFailure`.

        The engine goes by path and follows links, and between our look and its own another sandbox may have made one.
        No user code runs in this sandbox yet, so what is found out now has done no harm.
        """
        expected = Counter(place.identity for place in places if place.identity is not None)
        if not expected:
            return
        _, answer = await ask_json(door, "/_daemon/mounts")
        bound = Counter((device, plain(root)) for device, root in answer.get("mounts", ()))
        if expected - bound:
            raise RuntimeFailure("a folder of a volume was replaced while the sandbox started; nothing was mounted")


async def remove_volume(
    engine: Engine, options: DockerOptions, own: OwnContainer | None, volumes: Volumes, volume_id: str
) -> None:
    """Remove the folder of a volume, also where a sandbox left what we may not touch. Raises `RuntimeFailure`."""
    if await asyncio.to_thread(volumes.remove, volume_id):
        return
    mount = {"Type": "bind", "Source": path_on_engine(options.volumes_dir, own), "Target": "/volumes"}
    try:
        await run_helper(
            engine,
            options,
            own.image if own else options.default_image or own_reference(),
            ["sh", "-c", f"rm -rf /volumes/{DISCARDED}*"],
            doing="remove the content of a volume",
            host={"NetworkMode": "none", "Mounts": [mount]},
        )
    except Missing as error:
        raise RuntimeFailure(f"what sandboxes left in {options.volumes_dir} cannot be removed") from error
