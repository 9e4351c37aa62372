"""Who is let in, and the way from a login to the sandbox's daemon."""

import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from sandyard_api.jobs.client import ControlPlane as ControlPlaneClient
from sandyard_api.jobs.client import ControlPlaneError, SshAccessExpired, UnknownRoute
from sandyard_api.jobs.wire import Route
from sandyard_proxy.doors import Doors
from sandyard_proxy.errors import ControlPlaneAway, DoorUnreachable
from sandyard_proxy.route_table import RouteTable

if TYPE_CHECKING:
    from sandyard_daemon.gateway_client import GatewaySocket

STARTED = "started"
TOKEN = re.compile(r"[a-z0-9]{1,128}")
UNKNOWN = "This SSH access token is not valid: it was revoked, replaced by a newer one, or never was."
EXPIRED = "This SSH access token has expired; make a new one."
GONE = "The sandbox of this SSH access token does not exist any more."
AWAY = "Sandyard's control plane does not answer; try again in a moment."


class Refused(Exception):
    """Why not, as a sentence for the person at the other end."""


class Access:
    """What logins and channels ask before they reach a daemon."""

    def __init__(self, control_plane: ControlPlaneClient, routes: RouteTable, doors: Doors) -> None:
        self._control_plane = control_plane
        self._routes = routes
        self._doors = doors

    async def log_in(self, token: str) -> str:
        """The sandbox that this user name opens. Never remembered, so that revoking holds at once. Raises `Refused`."""
        if not TOKEN.fullmatch(token):
            raise Refused(UNKNOWN)
        try:
            sandbox_id = await self._control_plane.ssh_access(token)
        except UnknownRoute:
            raise Refused(UNKNOWN) from None
        except SshAccessExpired:
            raise Refused(EXPIRED) from None
        except ControlPlaneError as error:
            raise Refused(AWAY) from error
        await self.route(sandbox_id)
        return sandbox_id

    async def route(self, sandbox_id: str) -> Route:
        """The way to a sandbox that runs; a refusal is asked for twice. Raises `Refused`."""
        try:
            route = await self._routes.route(sandbox_id)
            if route is None or route.state != STARTED:
                route = await self._routes.route(sandbox_id, fresh=True)
        except ControlPlaneAway as error:
            raise Refused(AWAY) from error
        if route is None:
            raise Refused(GONE)
        if route.state != STARTED:
            raise Refused(f"The sandbox is not running: its state is {route.state}. Start it, then connect again.")
        return route

    async def open(self, sandbox_id: str, target: str) -> "GatewaySocket":
        """A conversation with the daemon at `target`; the caller closes it. Raises `Refused`."""
        from sandyard_daemon.gateway_client import GatewayClosed, GatewayRefused, GatewaySocket

        route = await self.route(sandbox_id)
        try:
            door = await self._doors.connect(route)
            return await GatewaySocket.open(door, target, route.door_secret)
        except DoorUnreachable as error:
            raise Refused(f"The sandbox does not answer: {error.message}") from error
        except GatewayRefused as error:
            self._routes.forget(sandbox_id)
            raise Refused(error.message) from error
        except (GatewayClosed, TimeoutError, OSError) as error:
            self._routes.forget(sandbox_id)
            raise Refused("The sandbox does not answer.") from error


def port_target(port: int) -> str:
    """Where the daemon forwards to a port of the sandbox's loopback."""
    return f"/_daemon/forward/{port}"


def listen_target(*, port: int | None = None, path: str = "") -> str:
    """Where the daemon listens on a port of the sandbox's loopback, or on a unix socket in it."""
    return f"/_daemon/listen?port={port}" if port is not None else f"/_daemon/listen?path={quote(path, safe='')}"


def accepted_target(number: str) -> str:
    """Where the daemon hands over a connection made to such a one."""
    return f"/_daemon/forward/accepted?id={quote(number, safe='')}"


def socket_target(path: str) -> str:
    """Where the daemon forwards to a unix socket in the sandbox."""
    return f"/_daemon/forward/unix?path={quote(path, safe='')}"
