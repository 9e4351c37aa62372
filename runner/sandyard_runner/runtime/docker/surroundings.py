"""Where this process itself stands: beside the engine, or in one of its containers, whose mounts are then looked up."""

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from sandyard_runner.errors import RuntimeFailure
from sandyard_runner.runtime.docker.engine import Engine
from sandyard_runner.runtime.docker.failures import Missing

MOUNTINFO = Path("/proc/self/mountinfo")
_OWN_FILE = re.compile(r"/containers/([0-9a-f]{64})/(?:hostname|hosts|resolv\.conf) ")


class OwnContainer(msgspec.Struct, frozen=True):
    """The container this process runs in, as the engine that holds the sandboxes sees it."""

    id: str
    image: str
    """Image id."""
    mounts: Mapping[PurePosixPath, PurePosixPath]
    """`{path in here: path on the engine's machine}` of its volumes and bind mounts."""
    volumes: frozenset[str]
    """Names of its volumes."""
    labels: Mapping[str, str]
    auto_remove: bool
    """Started with `--rm`: its anonymous volumes go with it."""


async def find_own_container(engine: Engine, mountinfo: Path = MOUNTINFO) -> OwnContainer | None:
    """The container of that engine in which we run; `None` when we run outside, or in one of another engine."""
    container_id = own_container_id(await asyncio.to_thread(_read_mountinfo, mountinfo))
    if container_id is None:
        return None
    try:
        found = await engine.call("inspect our own container", lambda api: api.inspect_container(container_id))
    except Missing:
        return None
    return _read(found)


def _read_mountinfo(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def own_container_id(mountinfo: str) -> str | None:
    """The id that the engine's own files, mounted into every container, carry in their path. *Source:* proc(5)."""
    match = _OWN_FILE.search(mountinfo)
    return match[1] if match else None


def _read(found: Mapping[str, Any]) -> OwnContainer:
    mounts = [mount for mount in found["Mounts"] if mount["Type"] in ("bind", "volume")]
    return OwnContainer(
        id=found["Id"],
        image=found["Image"],
        mounts={PurePosixPath(mount["Destination"]): PurePosixPath(mount["Source"]) for mount in mounts},
        volumes=frozenset(mount["Name"] for mount in mounts if mount["Type"] == "volume"),
        labels=found["Config"]["Labels"] or {},
        auto_remove=bool(found["HostConfig"]["AutoRemove"]),
    )


def path_on_engine(path: Path, own: OwnContainer | None) -> str:
    """How the engine's machine calls a path of ours, for binding it into a sandbox. Raises `RuntimeFailure`."""
    absolute = PurePosixPath(path.absolute())
    if own is None:
        return str(absolute)
    for inside in (absolute, *absolute.parents):
        if inside in own.mounts:
            return str(own.mounts[inside] / absolute.relative_to(inside))
    raise RuntimeFailure(f"{path} must be on a volume of this container: sandboxes share it with us through the engine")
