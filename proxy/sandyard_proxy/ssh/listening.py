"""Ports and unix sockets in the sandbox that the client serves: `ssh -R`."""

import asyncio
from collections.abc import Awaitable, Callable

import asyncssh
import structlog

from sandyard_daemon.gateway_client import Accepted, ForwardedStream, GatewayClosed, RemoteListener
from sandyard_proxy.ssh.access import Access, Refused, accepted_target
from sandyard_proxy.ssh.channels import Channels

log = structlog.get_logger(__name__)

OPEN_SECONDS = 15.0
OpenChannel = Callable[[ForwardedStream, Accepted, int], Awaitable[None]]
"""Opens a channel to the client for a connection to that port, and sees to both. Raises `asyncssh.Error`."""


class SandboxListener(asyncssh.SSHListener):
    """What the library closes when the client takes it back or goes."""

    def __init__(
        self, access: Access, sandbox_id: str, listener: RemoteListener, channels: Channels, open_channel: OpenChannel
    ) -> None:
        super().__init__()
        self._access = access
        self._sandbox_id = sandbox_id
        self._listener = listener
        self._channels = channels
        self._open_channel = open_channel
        self._task = asyncio.get_running_loop().create_task(self._run())

    def get_port(self) -> int:
        """Which it became."""
        return self._listener.port

    def close(self) -> None:
        """Listen no more; connections that are open go on."""
        self._task.cancel()

    async def wait_closed(self) -> None:
        """Until nothing listens any more."""
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    group.create_task(self._bring(await self._listener.accept()))
        except* GatewayClosed:
            pass  # the sandbox stopped
        finally:
            await self._listener.close()

    async def _bring(self, accepted: Accepted) -> None:
        """Take it from the daemon, and to the client; what the client does not want is closed."""
        try:
            stream = ForwardedStream(await self._access.open(self._sandbox_id, accepted_target(accepted.id)))
        except Refused as error:
            log.info("connection_not_taken", sandbox_id=self._sandbox_id, reason=str(error))
            return
        try:
            if self._channels.is_full:
                await stream.close()
                return
            async with asyncio.timeout(OPEN_SECONDS):
                await self._open_channel(stream, accepted, self._listener.port)
        except (asyncssh.Error, OSError) as error:
            log.info("connection_not_wanted", sandbox_id=self._sandbox_id, reason=str(error))
            await stream.close()
