"""From arguments to a listening daemon, and back to nothing: composition, start and shutdown."""

import asyncio
import contextlib
import gc
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sandyard_daemon.app import Application
from sandyard_daemon.areas import Areas, Context
from sandyard_daemon.children import Children
from sandyard_daemon.client import DOOR_NAME
from sandyard_daemon.diary import report
from sandyard_daemon.environment import Environment
from sandyard_daemon.events import EventLog
from sandyard_daemon.execution import Executions
from sandyard_daemon.http.server import Server
from sandyard_daemon.linux import become_subreaper, raise_descriptor_limit
from sandyard_daemon.routes.execute import ExecuteRoutes
from sandyard_daemon.routes.info import InfoRoutes
from sandyard_daemon.routes.internal import InternalRoutes
from sandyard_daemon.routes.logs import LogRoutes
from sandyard_daemon.routes.ports import PortRoutes
from sandyard_daemon.routes.sessions import SessionRoutes
from sandyard_daemon.sessions.log import DEFAULT_CAP
from sandyard_daemon.sessions.registry import Sessions
from sandyard_daemon.state import StateDirectory
from sandyard_daemon.telemetry.switch import TelemetrySwitch

SECRET_NAME = "secret"  # noqa: S105  a file's name
SHUTDOWN_SECONDS = 5.0
_REQUEST_GRACE_SECONDS = 0.5


class UsageError(Exception):
    """The arguments make no sense."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """The command line."""

    door_dir: Path
    """Where `door.sock` appears, and where the runner left `secret`."""
    state_dir: Path | None = None
    """`None`: the first that can be written of `$HOME/.sandyard` and `/tmp/.sandyard-<uid>`."""
    work_dir: str | None = None
    """`None`: the directory the daemon was started in."""
    log_cap: int = DEFAULT_CAP
    """Bytes kept of one log."""
    entrypoint: tuple[str, ...] = ()


def parse(words: Sequence[str]) -> Arguments:
    """Read the command line; `argparse` would cost more than the rest of it. Raises `UsageError`."""
    options: dict[str, str] = {}
    rest = list(words)
    while rest and rest[0].startswith("--"):
        name = rest.pop(0)
        if name == "--":
            break
        if name not in ("--door-dir", "--state-dir", "--work-dir", "--log-cap") or not rest:
            raise UsageError(f"unknown option or missing value: {name}")
        options[name] = rest.pop(0)
    if "--door-dir" not in options:
        raise UsageError("--door-dir is required")
    cap = options.get("--log-cap", str(DEFAULT_CAP))
    if not cap.isdigit():
        raise UsageError("--log-cap is a number of bytes")
    state = options.get("--state-dir")
    return Arguments(
        door_dir=Path(options["--door-dir"]),
        state_dir=Path(state) if state else None,
        work_dir=options.get("--work-dir"),
        log_cap=int(cap),
        entrypoint=tuple(rest),
    )


async def serve(arguments: Arguments) -> None:
    """Listen until SIGTERM or SIGINT, then end every session and leave nothing behind. Raises `OSError`."""
    secret = _take_secret(arguments.door_dir)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    environment = Environment.inherited(arguments.work_dir, raise_descriptor_limit())
    with contextlib.suppress(OSError):  # a work directory that is not there yet is told by the commands that need it
        os.chdir(environment.work_dir)
    become_subreaper()
    state = StateDirectory.open(_state_candidates(arguments.state_dir, environment))
    children, events = Children(), EventLog()
    children.start()
    sessions = Sessions(environment, children, state, events, log_cap=arguments.log_cap)
    executions = Executions(environment, children, state)
    run_entrypoint = sessions.start_entrypoint(arguments.entrypoint)
    logs, telemetry = LogRoutes(sessions), TelemetrySwitch(environment, sessions)

    def initialized(token: str | None) -> None:
        run_entrypoint()
        telemetry.turn_on(token)

    operations = {
        **InfoRoutes(environment, initialized, telemetry.look).handlers(),
        **ExecuteRoutes(executions).handlers(),
        **SessionRoutes(sessions).handlers(),
        **logs.handlers(),
    }
    areas = Areas(Context(environment, children, state, executions))
    paths = {**InternalRoutes(sessions, events, logs).handlers(), **areas.internal()}
    server = Server(Application(secret, operations, areas, paths, ports=PortRoutes().forward, tracing=telemetry))
    await server.listen(str(arguments.door_dir / DOOR_NAME))
    gc.collect()
    gc.freeze()  # supervisors are forked from here: a collection in one must not copy all these pages
    report("listening", door=str(arguments.door_dir / DOOR_NAME))
    await stopping.wait()
    await asyncio.gather(sessions.close(SHUTDOWN_SECONDS), areas.close())
    executions.close()
    events.close()
    await server.close(_REQUEST_GRACE_SECONDS)
    await telemetry.close()  # last: it tells how the others ended
    children.stop()
    state.remove()


def _take_secret(door_dir: Path) -> bytes:
    """Read the door's secret and remove it before anything else can run. Raises `OSError`."""
    path = door_dir / SECRET_NAME
    secret = path.read_bytes().strip()
    path.unlink()
    if not secret:
        raise OSError("the door's secret is empty")
    return secret


def _state_candidates(chosen: Path | None, environment: Environment) -> list[Path]:
    if chosen is not None:
        return [chosen]
    return [Path(environment.home) / ".sandyard", Path(f"/tmp/.sandyard-{os.getuid()}")]  # noqa: S108  a fallback
