"""Whether more than this process is going away: the stack we belong to, or the volume that remembers our sandboxes.

A runner that is told to end cannot be told why. But `docker compose down` removes the services that depend on it
before it ends the runner, while `stop` and `restart` leave them; `-v` takes their anonymous volumes along, too. That is
how it knows, and removes its sandboxes only then.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sandyard_runner.runtime.docker.engine import Engine
from sandyard_runner.runtime.docker.failures import Missing
from sandyard_runner.runtime.docker.surroundings import OwnContainer

PROJECT = "com.docker.compose.project"
DEPENDENTS = "dev.sandyard.dependent"
"""Label of the service that depends on the runner and has an anonymous volume."""


class Departure(StrEnum):
    """What goes away when this process ends."""

    PROCESS = "process"
    """Nothing else: sandboxes stay."""
    STACK = "stack"
    """The containers of our stack; its volumes stay, and with them the database."""
    EVERYTHING = "everything"
    """The volumes as well: nobody will ever know the sandboxes again."""


@dataclass(frozen=True, slots=True)
class Dependents:
    """The containers that depend on us, as they were while we ran: `{container id: names of its anonymous volumes}`."""

    volumes: Mapping[str, Sequence[str]]


async def look_at_dependents(engine: Engine, own: OwnContainer) -> Dependents:
    """Which there are now."""
    project = own.labels.get(PROJECT)
    if project is None:
        return Dependents({})
    labels = [f"{PROJECT}={project}", DEPENDENTS]
    found = await engine.call("list our stack", lambda api: api.containers(all=True, filters={"label": labels}))
    return Dependents({item["Id"]: _anonymous_volumes(item) for item in found})


def _anonymous_volumes(listed: Mapping[str, Any]) -> list[str]:
    return [mount["Name"] for mount in listed["Mounts"] if mount["Type"] == "volume" and _is_anonymous(mount["Name"])]


def _is_anonymous(volume: str) -> bool:
    return len(volume) == 64 and all(character in "0123456789abcdef" for character in volume)


async def what_departs(engine: Engine, own: OwnContainer | None, before: Dependents) -> Departure:
    """Asked when told to end; `before` is what `look_at_dependents` gave while all was well."""
    if own is None:
        return Departure.PROCESS
    if own.auto_remove and own.volumes and all(_is_anonymous(name) for name in own.volumes):
        return Departure.EVERYTHING
    if not before.volumes or (await look_at_dependents(engine, own)).volumes:
        return Departure.PROCESS
    volumes = [name for names in before.volumes.values() for name in names]
    if volumes and not [name for name in volumes if await _exists(engine, name)]:
        return Departure.EVERYTHING
    return Departure.STACK


async def _exists(engine: Engine, volume: str) -> bool:
    try:
        await engine.call("inspect a volume", lambda api: api.inspect_volume(volume))
    except Missing:
        return False
    return True
