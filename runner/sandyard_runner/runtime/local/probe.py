"""The trial at start: whether this machine lets us make namespaces, and which way out of a network works."""

import asyncio
import signal
import uuid
from pathlib import Path

import structlog

from sandyard_api.jobs.wire import SandboxSpec
from sandyard_runner.doors import prepare_door
from sandyard_runner.errors import RuntimeFailure
from sandyard_runner.runtime.local import network
from sandyard_runner.runtime.local.launch import REFUSED_HINT, Launched, launch_namespaces
from sandyard_runner.runtime.local.layout import SPEC_FILE, Layout
from sandyard_runner.runtime.local.options import Network
from sandyard_runner.runtime.local.veth import Veth

log = structlog.get_logger(__name__)


async def probe(layout: Layout, veth: Veth) -> None:
    """Start and end a trial sandbox, and set `layout.uplink` to the way out that works.

    Raises `RuntimeFailure` with a text that names `--isolation none` where namespaces are refused.
    """
    if not layout.is_isolated:
        return
    trial = f"probe-{uuid.uuid4().hex[:12]}"
    spec = SandboxSpec(sandbox_id=trial, organization_id="", name="probe", door_secret="")
    try:
        door = await asyncio.to_thread(_make, layout, spec)
        launched = await launch_namespaces(layout.isolated(spec, door, None, ("/bin/sleep", "60")))
        try:
            if layout.options.network is Network.AUTO:
                layout.uplink = await _find_uplink(trial, launched, veth)
        finally:
            launched.child.kill()
            launched.first.signal(signal.SIGKILL)
            await asyncio.to_thread(launched.child.wait)
    except PermissionError as error:
        # For one, an overlay file system, such as a container's own, does not take the whiteouts of another.
        reason = f"{error}; in a container a data directory on a volume or a tmpfs may do"
        raise RuntimeFailure(REFUSED_HINT.format(reason=reason)) from error
    except OSError as error:
        raise RuntimeFailure(f"the local runtime cannot work in {layout.options.data_dir}: {error}") from error
    finally:
        await asyncio.to_thread(layout.delete, trial)


def _make(layout: Layout, trial: SandboxSpec) -> Path:
    layout.make(trial)
    (layout.base(trial.sandbox_id) / SPEC_FILE).unlink()  # a probe that is cut short is removed by the next start
    return prepare_door(layout.options.doors_dir, trial.sandbox_id, "")


async def _find_uplink(trial: str, launched: Launched, veth: Veth) -> network.Uplink | None:
    for uplink in network.find_uplinks():
        try:
            if uplink.name == network.VETH:
                await veth.connect(trial, launched.first.pid)
                await veth.disconnect(trial)
                return uplink
            helper = await network.connect_uplink(uplink, launched.first.pid, die_with_parent=True)
        except RuntimeFailure as error:
            log.info("uplink_unusable", uplink=uplink.name, reason=error.message)
            continue
        helper.kill()
        await asyncio.to_thread(helper.wait)
        return uplink
    return None
