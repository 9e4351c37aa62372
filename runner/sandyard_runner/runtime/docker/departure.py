"""Whether more than this process is going away: the stack we belong to, or the volume that remembers our sandboxes.

A runner that is told to end cannot be told why. But `docker compose down` removes the services that depend on it
before it ends the runner, while `stop` and `restart` leave them; `-v` takes their anonymous volumes along, too. That is
how it knows, and removes its sandboxes only then.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from enum import StrEnum
from functools import partial
from typing import Any

import structlog

from sandyard_runner.errors import RuntimeFailure
from sandyard_runner.runtime.docker.engine import Api, Engine
from sandyard_runner.runtime.docker.events import EventReader
from sandyard_runner.runtime.docker.failures import Missing
from sandyard_runner.runtime.docker.surroundings import OwnContainer

log = structlog.get_logger(__name__)

PROJECT = "com.docker.compose.project"
DEPENDENT = "dev.sandyard.dependent"
"""Label of the service that depends on the runner and has an anonymous volume."""


class Departure(StrEnum):
    """What goes away when this process ends."""

    PROCESS = "process"
    """Nothing else: sandboxes stay."""
    STACK = "stack"
    """The containers of our stack; its volumes stay, and with them the database."""
    EVERYTHING = "everything"
    """The volumes as well: nobody will ever know the sandboxes again."""


class Dependents:
    """The containers of our stack that depend on us, and what became of them. Make it with `watch_dependents`."""

    def __init__(self, engine: Engine, own: OwnContainer | None) -> None:
        self._engine = engine
        self._own = own
        self._volumes: Mapping[str, Sequence[str]] = {}
        """`{container id: its anonymous volumes}`, as last seen while there was one."""

    async def departure(self) -> Departure:
        """What goes away, asked when told to end. Raises `RuntimeFailure`."""
        if self._own is None:
            return Departure.PROCESS
        if self._own.auto_remove and self._own.volumes and all(map(_is_anonymous, self._own.volumes)):
            return Departure.EVERYTHING
        if not self._volumes or await self._present():
            return Departure.PROCESS
        volumes = self._all_volumes()
        if volumes and not [name for name in volumes if await self._exists(name)]:
            return Departure.EVERYTHING
        return Departure.STACK

    async def look(self) -> None:
        """See which there are; those that were there last are remembered when there is none any more."""
        if found := await self._present():
            self._volumes = found

    async def remove_volumes(self) -> None:
        """Remove the anonymous volumes of those that are gone: nobody else would, and they have done their duty."""
        for name in self._all_volumes():
            with contextlib.suppress(Missing):
                await self._engine.call("remove a volume", partial(_remove_volume, name=name))

    async def _present(self) -> Mapping[str, Sequence[str]]:
        labels = dependent_labels(self._own)
        if not labels:
            return {}
        found = await self._engine.call(
            "list our stack", lambda api: api.containers(all=True, filters={"label": list(labels)})
        )
        return {item["Id"]: _anonymous_volumes(item) for item in found}

    def _all_volumes(self) -> list[str]:
        return [name for names in self._volumes.values() for name in names]

    async def _exists(self, volume: str) -> bool:
        try:
            await self._engine.call("inspect a volume", lambda api: api.inspect_volume(volume))
        except Missing:
            return False
        return True


@asynccontextmanager
async def watch_dependents(engine: Engine, own: OwnContainer | None) -> AsyncIterator[Dependents]:
    """Dependents that are kept up to date: one may be made anew while we run."""
    dependents = Dependents(engine, own)
    labels = dependent_labels(own)
    if not labels:
        yield dependents
        return
    async with asyncio.TaskGroup() as tasks:

        def look_again(_action: str, _labels: Mapping[str, str]) -> None:
            tasks.create_task(_look_again(dependents))

        reader = EventReader(look_again, actions=["create"], labels=labels)
        await reader.start()
        try:
            await dependents.look()
            yield dependents
        finally:
            await reader.close()


async def _look_again(dependents: Dependents) -> None:
    try:
        await dependents.look()
    except RuntimeFailure as failure:
        log.warning("stack_not_seen", reason=failure.message)


def dependent_labels(own: OwnContainer | None) -> Sequence[str]:
    """By which labels our dependents are found; none when we belong to no stack."""
    project = own.labels.get(PROJECT) if own else None
    return [f"{PROJECT}={project}", DEPENDENT] if project else []


def _anonymous_volumes(listed: Mapping[str, Any]) -> list[str]:
    return [mount["Name"] for mount in listed["Mounts"] if mount["Type"] == "volume" and _is_anonymous(mount["Name"])]


def _is_anonymous(volume: str) -> bool:
    return len(volume) == 64 and all(character in "0123456789abcdef" for character in volume)


def _remove_volume(api: Api, name: str) -> None:
    api.remove_volume(name)
