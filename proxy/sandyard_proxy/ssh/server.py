"""One SSH connection, by the library: who it is, and what it may open."""

import socket
from collections.abc import Awaitable

import asyncssh
import msgspec
import structlog
from asyncssh.constants import OPEN_ADMINISTRATIVELY_PROHIBITED, OPEN_CONNECT_FAILED, OPEN_RESOURCE_SHORTAGE

from sandyard_daemon.gateway_client import Accepted, ForwardedStream, GatewayClosed, RemoteListener
from sandyard_proxy.activity import Activity
from sandyard_proxy.ssh.access import Access, Refused, listen_target, port_target, socket_target
from sandyard_proxy.ssh.channels import Channels
from sandyard_proxy.ssh.forwarding import PortSession, SocketSession
from sandyard_proxy.ssh.listening import OpenChannel, SandboxListener
from sandyard_proxy.ssh.sessions import Session

log = structlog.get_logger(__name__)

LOGIN_SECONDS = 30
MAX_LISTENERS = 16
"""Ports and sockets that a connection may ask to listen on in its life."""
KEEPALIVE_SECONDS = 30
"""Between questions to a silent client; it is gone when it leaves three unanswered."""
WINDOW = 2 << 20
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0", "::", ""})  # noqa: S104  compared, not bound
LOOPBACK_ONLY = "only servers of the sandbox itself can be reached: forward to localhost"


class ServerKey(msgspec.Struct, frozen=True):
    """What identifies the gateway to clients."""

    key: asyncssh.SSHKey

    @classmethod
    def read(cls, text: str) -> "ServerKey":
        """From OpenSSH's private key format, without a passphrase."""
        return cls(asyncssh.import_private_key(text))


class GatewayServer(asyncssh.SSHServer):
    """The token is the user name, and all that is asked for: whoever has it is in, whatever else is offered."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._channels = Channels()
        self._listeners = 0
        self._connection: asyncssh.SSHServerConnection
        self.sandbox_id: str | None = None
        """Known when somebody is logged in."""

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """By the library, before anything is exchanged."""
        self._connection = conn

    async def begin_auth(self, username: str) -> bool:
        """Whether more than the user name is needed: never, so this says no, or tells why not and offers nothing."""
        try:
            self.sandbox_id = await self._access.log_in(username)
        except Refused as error:
            self._connection.send_auth_banner(f"{error}\r\n")
            return True
        return False

    def session_requested(self) -> Session:
        """A shell, a command or files."""
        sandbox_id = self._admit()
        here, there = (self._connection.get_extra_info(name) for name in ("sockname", "peername"))
        variables = {}
        if here and there:
            variables = {
                "SSH_CLIENT": f"{there[0]} {there[1]} {here[1]}",
                "SSH_CONNECTION": f"{there[0]} {there[1]} {here[0]} {here[1]}",
            }
        return Session(self._access, sandbox_id, variables=variables, channels=self._channels)

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> Awaitable[PortSession]:
        """To a port of the sandbox's loopback."""
        sandbox_id = self._admit()
        if dest_host.lower() not in LOOPBACK:
            raise asyncssh.ChannelOpenError(OPEN_ADMINISTRATIVELY_PROHIBITED, LOOPBACK_ONLY)

        async def connect() -> PortSession:
            return PortSession(await self._connect(sandbox_id, port_target(dest_port)), self._channels)

        return connect()

    def unix_connection_requested(self, dest_path: str) -> Awaitable[SocketSession]:
        """To a unix socket in the sandbox."""
        sandbox_id = self._admit()

        async def connect() -> SocketSession:
            return SocketSession(await self._connect(sandbox_id, socket_target(dest_path)), self._channels)

        return connect()

    def server_requested(self, listen_host: str, listen_port: int) -> "Awaitable[SandboxListener | bool]":
        """On a port of the sandbox's loopback, whichever of its addresses is asked for."""

        async def open_channel(stream: ForwardedStream, accepted: Accepted, port: int) -> None:
            await self._connection.create_connection(
                lambda: PortSession(stream, self._channels), listen_host, port, *accepted.origin
            )

        async def listen() -> "SandboxListener | bool":
            if listen_host not in (*LOOPBACK, "*"):
                return False
            return await self._listen(listen_target(port=listen_port), open_channel) or False

        return listen()

    def unix_server_requested(self, listen_path: str) -> "Awaitable[SandboxListener | bool]":
        """On a unix socket in the sandbox."""

        async def open_channel(stream: ForwardedStream, _accepted: Accepted, _port: int) -> None:
            await self._connection.create_unix_connection(lambda: SocketSession(stream, self._channels), listen_path)

        async def listen() -> "SandboxListener | bool":
            return await self._listen(listen_target(path=listen_path), open_channel) or False

        return listen()

    async def _listen(self, target: str, open_channel: OpenChannel) -> SandboxListener | None:
        """`None` where that is refused: the protocol has no words for why."""
        if self.sandbox_id is None or self._listeners >= MAX_LISTENERS:
            return None
        try:
            listener = await RemoteListener.start(await self._access.open(self.sandbox_id, target))
        except (Refused, GatewayClosed) as error:
            log.info("not_listening", sandbox_id=self.sandbox_id, reason=str(error))
            return None
        self._listeners += 1
        return SandboxListener(self._access, self.sandbox_id, listener, self._channels, open_channel)

    def _admit(self) -> str:
        if self.sandbox_id is None or self._channels.is_full:
            raise asyncssh.ChannelOpenError(OPEN_RESOURCE_SHORTAGE, "too many channels on this connection")
        return self.sandbox_id

    async def _connect(self, sandbox_id: str, target: str) -> ForwardedStream:
        try:
            return ForwardedStream(await self._access.open(sandbox_id, target))
        except Refused as error:
            raise asyncssh.ChannelOpenError(OPEN_CONNECT_FAILED, str(error)) from error


class Connection:
    """One client, from the accepted socket to its end."""

    def __init__(self, access: Access) -> None:
        self._server = GatewayServer(access)
        self._connection: asyncssh.SSHServerConnection | None = None

    @property
    def sandbox_id(self) -> str | None:
        """Where it is logged in, if it is."""
        return self._server.sandbox_id if self._connection is not None else None

    async def run(self, accepted: socket.socket, key: ServerKey, activity: Activity) -> None:
        """Serve it to its end; closed in any case. An open connection is activity like an open request."""
        try:
            connection = self._connection = await asyncssh.run_server(
                accepted,
                server_factory=lambda: self._server,
                server_host_keys=[key.key],
                encoding=None,
                line_editor=False,
                agent_forwarding=False,
                x11_forwarding=False,
                compression_algs=None,
                login_timeout=LOGIN_SECONDS,
                keepalive_interval=KEEPALIVE_SECONDS,
                window=WINDOW,
                server_version="Sandyard",
            )
        except (asyncssh.Error, OSError, TimeoutError):
            return  # not let in, or not SSH
        try:
            with activity.using(self._server.sandbox_id or ""):
                await connection.wait_closed()
        finally:
            connection.abort()
            await connection.wait_closed()

    def disconnect(self, reason: str) -> None:
        """Tell the client why, and end."""
        if self._connection is not None:
            self._connection.disconnect(asyncssh.DISC_BY_APPLICATION, reason)
