"""Speaking to a daemon as the SSH gateway does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sandyard_daemon.client import connect_door
from sandyard_daemon.gateway_client import (
    Execution,
    Exited,
    GatewaySocket,
)
from tests.daemon.conftest import SECRET, Daemon

SECONDS = 60


@asynccontextmanager
async def opened(daemon: Daemon, target: str) -> AsyncIterator[GatewaySocket]:
    socket = await GatewaySocket.open(connect_door(daemon.door), target, SECRET)
    try:
        async with asyncio.timeout(SECONDS):
            yield socket
    finally:
        await socket.close()


async def result(execution: Execution) -> tuple[bytes, bytes, Exited]:
    """Both streams to the end, and the end."""
    streams = {1: b"", 2: b""}
    async for stream, data in execution.outputs():
        streams[stream] += data
    assert execution.exited is not None
    return streams[1], streams[2], execution.exited


async def until(execution: Execution, text: bytes) -> bytes:
    """Standard output up to where `text` was shown."""
    seen = b""
    async for _, data in execution.outputs():
        seen += data
        if text in seen:
            return seen
    raise AssertionError(seen)


async def exec_(daemon: Daemon, command: str, **options: Any) -> tuple[bytes, bytes, Exited]:
    async with opened(daemon, "/_daemon/exec") as socket:
        return await result(await Execution.start(socket, command, **options))
