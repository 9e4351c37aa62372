"""The outer application of Sandyard's one public origin: sandboxes are the proxy's, the rest is the control plane's."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import unquote_to_bytes

import msgspec
import structlog

from sandyard.bus import Bus
from sandyard.clock import Clock
from sandyard.hosts import HostRules
from sandyard_api.jobs.client import ControlPlane
from sandyard_proxy.activity import Activity
from sandyard_proxy.answers import AnswerOnce, answer_error, answer_health
from sandyard_proxy.asgi import App, Message, Receive, Scope, Send, raw_path
from sandyard_proxy.bench.front import Bench
from sandyard_proxy.cors import with_permission
from sandyard_proxy.destinations import Destination, check_host, find_destination
from sandyard_proxy.doors import Doors, Runners
from sandyard_proxy.errors import ProxyError
from sandyard_proxy.follow.routes import FollowRoutes
from sandyard_proxy.forward import ClientGone
from sandyard_proxy.forwarded import tell_origin
from sandyard_proxy.options import ProxyOptions
from sandyard_proxy.route_table import RouteTable
from sandyard_proxy.sandboxes import SandboxRoutes
from sandyard_proxy.ssh.access import Access
from sandyard_proxy.ssh.gateway import SshGateway, SshListener
from sandyard_runner.client import RunnerClient

log = structlog.get_logger(__name__)

BENCH = b"/_sandyard/"
SANDBOX = re.compile(rb"/api/sandbox/([^/]+)")
KEYS = b"/api/api-keys"

__all__ = ["ProxyOptions", "SshListener", "open_proxy"]


@asynccontextmanager
async def open_proxy(
    *,
    control_plane_app: App,
    control_plane: ControlPlane,
    runners: Callable[[str], RunnerClient],
    bus: Bus,
    clock: Clock,
    options: ProxyOptions,
    ssh: SshListener | None = None,
) -> AsyncIterator[App]:
    """The public application; its connections and tasks end with the block.

    `control_plane_app` gets every request that is for no sandbox; `runners` makes the client of a runner's base URL;
    `ssh` is where SSH clients are served beside it, if they are.
    """
    routes = RouteTable(control_plane, clock)
    activity = Activity(control_plane, clock)
    clients = Runners(runners)
    doors = Doors(options.doors_dir, clients, routes.forget)
    follow = FollowRoutes(routes, doors, clients, bus)
    bench = Bench(routes, bus, clock, journal=options.journal, version=options.version)
    tasks = [asyncio.create_task(routes.watch(bus)), asyncio.create_task(activity.run())]
    if ssh is not None:
        gateway = SshGateway(ssh, Access(control_plane, routes, doors), activity=activity, clock=clock)
        tasks.append(asyncio.create_task(gateway.run()))
    try:
        async with bench.running():
            yield _Proxy(
                control_plane_app,
                routes,
                SandboxRoutes(routes, doors, follow, activity, warns=options.preview_warning),
                follow,
                HostRules.of(options.allowed_hosts, options.public_url),
                options,
                activity,
                bench,
            )
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await activity.flush()
        doors.close()
        await clients.close()
        await routes.close()


class _Proxy(msgspec.Struct, frozen=True):
    control_plane: App
    routes: RouteTable
    sandboxes: SandboxRoutes
    follow: FollowRoutes
    hosts: HostRules
    options: ProxyOptions
    activity: Activity
    bench: Bench

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return
        if self.bench.is_idle:
            await self._serve(scope, receive, send)
        else:
            await self.bench.around(scope, receive, send, self._serve)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        destination = find_destination(scope)
        once = AnswerOnce(send if destination is None else with_permission(scope, send))
        try:
            check_host(scope, self.hosts)
            await self._dispatch(scope, receive, once, destination)
        except (ClientGone, OSError) as gone:
            # Servers tell by an `OSError` that a client left; those of our own connections are ProxyErrors by now.
            log.debug("client_gone", path=scope["path"], reason=str(gone))
        except ProxyError as error:
            await answer_error(scope, receive, once, error)
        except Exception:
            log.exception("request_failed", path=scope["path"])
            await answer_error(scope, receive, once, ProxyError("an unexpected error occurred"))

    async def _dispatch(
        self, scope: Scope, receive: Receive, send: AnswerOnce, destination: Destination | None
    ) -> None:
        if destination is not None:
            await self.sandboxes.serve(scope, receive, send, destination)
        elif raw_path(scope) == b"/health" and scope["type"] == "http":
            await answer_health(scope, send, self.options.version, self.follow.stats)
        elif self.bench.owns(scope):
            await self.bench.serve(scope, receive, send, self._ask_control_plane)
        else:
            await self._ask_control_plane(scope, receive, send)

    async def _ask_control_plane(self, scope: Scope, receive: Receive, send: Send) -> None:
        if raw_path(scope).startswith(BENCH):
            # Use that was seen before the clock is moved must not be told as use after it.
            await self.activity.flush()
        if scope["type"] == "http" and scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            send = self._forgetting(raw_path(scope), send)
        await self.control_plane(tell_origin(scope, trust=self.options.trust_forwarded), receive, send)

    def _forgetting(self, path: bytes, send: Send) -> Send:
        """Whoever revoked something through us finds it revoked here: the bus tells all proxies, but a moment later."""
        sandbox = SANDBOX.match(path)

        async def forget_first(message: Message) -> None:
            if message["type"] == "http.response.start":
                if sandbox is not None:
                    self.routes.forget(unquote_to_bytes(sandbox[1]).decode(errors="replace"))
                elif path.startswith(KEYS):
                    self.routes.forget_grants()
            await send(message)

        return forget_first
