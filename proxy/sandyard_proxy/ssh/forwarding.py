"""Connections to servers inside the sandbox: `ssh -L` and `-W`, to ports of its loopback and to unix sockets."""

import asyncio

import asyncssh
from asyncssh.stream import SSHReader, SSHTCPStreamSession, SSHUNIXStreamSession, SSHWriter

from sandyard_daemon.gateway_client import ForwardedStream, GatewayClosed
from sandyard_proxy.ssh.channels import Channels, ChannelTask

PIECE = 128 << 10


class _Relay:
    """Both directions between a channel and the daemon, half-closes included."""

    def __init__(self, stream: ForwardedStream, channels: Channels) -> None:
        self._stream = stream
        self.task = ChannelTask(channels)

    async def run(self, reader: SSHReader[bytes], writer: SSHWriter[bytes]) -> None:
        self.task.adopt()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._up(reader))
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
        """Its task ends with it."""
        super().connection_lost(exc)
        self._relay.task.lost()


class SocketSession(SSHUNIXStreamSession[bytes]):
    """A channel to a unix socket."""

    def __init__(self, stream: ForwardedStream, channels: Channels) -> None:
        self._relay = _Relay(stream, channels)
        super().__init__(self._relay.run)

    def connection_lost(self, exc: Exception | None) -> None:
        """Its task ends with it."""
        super().connection_lost(exc)
        self._relay.task.lost()
