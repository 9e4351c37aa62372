"""How a sandbox becomes a container: its configuration, and what its state says. Nothing is called here."""

import signal
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from sandyard_api.jobs.wire import Resources, SandboxSpec
from sandyard_runner.daemon_bundle import Bundle
from sandyard_runner.runtime.contract import Present, PresentState
from sandyard_runner.runtime.docker.options import (
    BUNDLE_MOUNT,
    DOOR_MOUNT,
    LABEL_IMAGE,
    LABEL_INSTALLATION,
    LABEL_SANDBOX,
    DockerOptions,
)

GIB = 1 << 30
CPU_PERIOD_MICROSECONDS = 100_000
HOSTNAME_LIMIT = 63
SIGNAL_BASE = 128


class Image(msgspec.Struct, frozen=True):
    """What of an image decides how its sandboxes start."""

    reference: str
    entrypoint: Sequence[str]
    """Its ENTRYPOINT and CMD as one command line; empty when it has none."""
    work_dir: str
    """Its WORKDIR; empty when it has none."""
    is_default: bool
    size_bytes: int | None = None


class Folder(msgspec.Struct, frozen=True):
    """A shared folder of a sandbox."""

    source: str
    """Path on the engine's machine."""
    target: str
    read_only: bool


class HostPaths(msgspec.Struct, frozen=True):
    """What is bound into a sandbox, as paths on the engine's machine."""

    bundle: str
    door: str
    folders: Sequence[Folder] = ()


def configuration(
    spec: SandboxSpec, image: Image, bundle: Bundle, paths: HostPaths, options: DockerOptions
) -> dict[str, Any]:
    """The body of the engine's `POST /containers/create`. *Source:* Docker Engine API v1.41."""
    return {
        "Image": image.reference,
        "Hostname": spec.sandbox_id[:HOSTNAME_LIMIT],
        "User": spec.user or "",
        "Env": [f"{name}={value}" for name, value in _environment(spec, image).items()],
        "Labels": {LABEL_INSTALLATION: options.installation, LABEL_SANDBOX: spec.sandbox_id},
        "Entrypoint": bundle.command(BUNDLE_MOUNT, *_daemon_arguments(image, spec.entrypoint)),
        "Cmd": [],
        # An image's own would ask the daemon in words it does not know, or probe a service we do not start.
        "StopSignal": "SIGTERM",
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": _host_configuration(spec, paths, options),
    }


def _host_configuration(spec: SandboxSpec, paths: HostPaths, options: DockerOptions) -> dict[str, Any]:
    configuration: dict[str, Any] = {
        "Init": True,
        **limits(Resources(spec.cpu, spec.memory_gib, spec.disk_gib)),
        "PidsLimit": options.process_limit,
        "NetworkMode": "none" if spec.network_block_all else options.network,
        "RestartPolicy": {"Name": "no"},
        # Only what the daemon itself has to complain about; commands write to their own logs.
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "1"}},
        "Mounts": [
            {"Type": "bind", "Source": paths.bundle, "Target": BUNDLE_MOUNT, "ReadOnly": True},
            {"Type": "bind", "Source": paths.door, "Target": DOOR_MOUNT},
            *map(_mount, paths.folders),
        ],
    }
    if options.oci_runtime:
        configuration["Runtime"] = options.oci_runtime
    return configuration


def _mount(folder: Folder) -> dict[str, Any]:
    return {
        "Type": "bind",
        "Source": folder.source,
        "Target": folder.target,
        "ReadOnly": folder.read_only,
        # Read-only does not hold for what is mounted below it.
        "BindOptions": {"NonRecursive": True},
    }


def limits(resources: Resources) -> dict[str, int]:
    """The engine's words for limits, at creation and later. A quota and not `NanoCpus`, which cannot be changed."""
    memory = resources.memory_gib * GIB
    return {
        "CpuPeriod": CPU_PERIOD_MICROSECONDS,
        "CpuQuota": resources.cpu * CPU_PERIOD_MICROSECONDS,
        "Memory": memory,
        # The same figure again means: no swap on top.
        "MemorySwap": memory,
    }


def kept_configuration(image: Mapping[str, Any], container: Mapping[str, Any], installation: str) -> dict[str, Any]:
    """What an image made from a container says of itself: how its base starts, instead of how our daemon does.

    The engine fills in what is empty here from the container, and merges environment and labels.
    """
    base, ours = image.get("Config") or {}, container["Config"]
    user = base.get("User") or ""
    return {
        "Entrypoint": base.get("Entrypoint") or [],
        "Cmd": base.get("Cmd") or [],
        "WorkingDir": base.get("WorkingDir") or "",
        "User": user if user == ours.get("User", "") else user or "root",
        "Labels": {LABEL_INSTALLATION: "", LABEL_SANDBOX: "", LABEL_IMAGE: installation},
    }


def _environment(spec: SandboxSpec, image: Image) -> dict[str, str]:
    """What programs in a sandbox find in the environment; ours first, so that the user's choice wins."""
    ours = {
        "DAYTONA_SANDBOX_ID": spec.sandbox_id,
        "DAYTONA_ORGANIZATION_ID": spec.organization_id,
        "DAYTONA_REGION_ID": spec.region,
    }
    if spec.snapshot:
        ours["DAYTONA_SANDBOX_SNAPSHOT"] = spec.snapshot
    if spec.user:
        ours["DAYTONA_SANDBOX_USER"] = spec.user
    if not image.work_dir:
        ours["DAYTONA_USER_HOME_AS_WORKDIR"] = "true"
    return ours | dict(spec.env)


def _daemon_arguments(image: Image, entrypoint: Sequence[str] | None) -> list[str]:
    arguments = ["--door-dir", DOOR_MOUNT]
    if image.work_dir:
        arguments += ["--work-dir", image.work_dir]
    program = entrypoint or image.entrypoint
    return [*arguments, "--", *program] if program else arguments


def read_image(reference: str, found: Mapping[str, Any], *, is_default: bool) -> Image:
    """What `docker inspect` of an image tells us."""
    config = found.get("Config") or {}
    command = [*(config.get("Entrypoint") or []), *(config.get("Cmd") or [])]
    return Image(reference, command, config.get("WorkingDir") or "", is_default, found.get("Size"))


def read_present(sandbox_id: str, found: Mapping[str, Any]) -> Present:
    """What `docker inspect` of a container tells us."""
    state = found["State"]
    if state["Running"]:
        return Present(sandbox_id, PresentState.PAUSED if state["Paused"] else PresentState.RUNNING)
    if state["Status"] == "created":
        return Present(sandbox_id, PresentState.STOPPED)
    return Present(sandbox_id, PresentState.STOPPED, state["ExitCode"], exit_reason(state))


def was_killed(state: Mapping[str, Any]) -> bool:
    """Whether a container was killed and nothing says by what: the engine may be about to tell that memory ran out."""
    return not state["Running"] and not state.get("OOMKilled") and state["ExitCode"] == SIGNAL_BASE + signal.SIGKILL


def exit_reason(state: Mapping[str, Any]) -> str:
    """Why a container is not running, in words for the user."""
    code = state["ExitCode"]
    # The flag alone says that something in the container was killed once, not that it ended the container.
    if state.get("OOMKilled") and code == SIGNAL_BASE + signal.SIGKILL:
        return "killed: out of memory"
    if state.get("Error"):
        return f"did not start: {state['Error']}"
    if code > SIGNAL_BASE:
        return f"ended by signal {code - SIGNAL_BASE}"
    return f"its daemon ended with exit code {code}" if code else "its daemon ended"
