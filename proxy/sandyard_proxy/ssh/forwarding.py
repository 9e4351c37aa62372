"""Connections between clients and the sandbox, over ports of its loopback and unix sockets: `ssh -L`, `-W` and `-R`."""

import asyncio

import asyncssh
from asyncssh.stream import SSHReader, SSHTCPStreamSession, SSHUNIXStreamSession, SSHWriter

from sandyard_daemon.gateway_client import ForwardedStream, GatewayClosed
from sandyard_proxy.ssh.channels import Channels, ChannelTask

PIECE = 128 << 10
LAST_SECONDS = 30.0
"""For bytes that came before the channel was closed: whoever has its answer closes while they are on their way."""


class _Relay:
    """Both directions between a channel and the daemon, half-closes included."""

    def __init__(self, stream: ForwardedStream, channels: Channels) -> None:
        self._stream = stream
        self._task = ChannelTask(channels)
        self._upward: asyncio.Task[None] | None = None

    def lost(self) -> None:
        """The channel is closed: what came by it still goes to the sandbox, nothing comes back."""
        if self._upward is None or self._upward.done():
            self._task.lost()
            return
        self._upward.add_done_callback(lambda _: self._task.lost())
        asyncio.get_running_loop().call_later(LAST_SECONDS, self._task.lost)

    async def run(self, reader: SSHReader[bytes], writer: SSHWriter[bytes]) -> None:
        self._task.adopt()
        try:
            async with asyncio.TaskGroup() as group:
                self._upward = group.create_task(self._up(reader))
                group.create_task(self._down(writer))
        except* (GatewayClosed, asyncssh.Error, OSError):
            pass  # one side is gone: so is the connection
        finally:
            writer.close()
            await self._stream.close()

    async def _up(self, reader: SSHReader[bytes]) -> None:
        while data := await reader.read(PIECE):
            await self._stream.write(data)
        await self._stream.write_eof()

    async def _down(self, writer: SSHWriter[bytes]) -> None:
        while data := await self._stream.read():
            writer.write(data)
            await writer.drain()
        writer.write_eof()


class PortSession(SSHTCPStreamSession[bytes]):
    """A channel to a port."""

    def __init__(self, stream: ForwardedStream, channels: Channels) -> None:
        self._relay = _Relay(stream, channels)
        super().__init__(self._relay.run)

    def connection_lost(self, exc: Exception | None) -> None:
        """What was read goes on to the sandbox."""
        super().connection_lost(exc)
        self._relay.lost()


class SocketSession(SSHUNIXStreamSession[bytes]):
    """A channel to a unix socket."""

    def __init__(self, stream: ForwardedStream, channels: Channels) -> None:
        self._relay = _Relay(stream, channels)
        super().__init__(self._relay.run)

    def connection_lost(self, exc: Exception | None) -> None:
        """What was read goes on to the sandbox."""
        super().connection_lost(exc)
        self._relay.lost()
