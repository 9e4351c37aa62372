"""Giving a sandbox that runs its network rules, and the variables for its secrets."""

from http import HTTPStatus

from sandyard_api.jobs.wire import SandboxSpec
from sandyard_runner.door_http import BEGIN_TIMEOUT_SECONDS, ask_json
from sandyard_runner.egress.services import VARIABLES
from sandyard_runner.errors import DaemonUnreachable, Unsupported
from sandyard_runner.registry import Registry
from sandyard_runner.runtime.contract import CanRestrict, Runtime

PLACEHOLDER_PREFIX = "dtn_secret_"
"""Of every placeholder: variables with one that is not mounted any more go away."""


async def furnish(runtime: Runtime, registry: Registry, spec: SandboxSpec, *, tell_daemon: bool = True) -> None:
    """Hold the spec's rules from now on, and let the daemon know the variables; a paused one cannot be told.

    Raises `RuntimeFailure`.
    """
    if not isinstance(runtime, CanRestrict):
        if spec.network_allow_list or spec.domain_allow_list or spec.secrets:
            raise Unsupported(f"the {runtime.name} runtime cannot hold network rules or secrets")
        return
    told = dict(await runtime.hold_network(spec))
    door = registry.find_door(spec.sandbox_id)
    if not tell_daemon or door is None or not door.path.exists():
        return
    told |= {grant.variable: grant.placeholder for grant in spec.secrets}
    # What the user set beside us stays: only with secrets, or after them, are these variables ours.
    unset = [name for name in VARIABLES if name not in told and name not in spec.env] if not spec.secrets else []
    status, answer = await ask_json(
        door,
        "/env",
        json_body={"set": told, "unset": unset, "unsetValuePrefix": PLACEHOLDER_PREFIX},
        head_seconds=BEGIN_TIMEOUT_SECONDS,
    )
    if status != HTTPStatus.OK:
        raise DaemonUnreachable(f"the daemon refused the variables of secrets: {answer.get('message', status)}")
