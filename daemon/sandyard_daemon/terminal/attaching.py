"""One client of a terminal: what it types, what it sees, and how it learns of the end."""

import asyncio
import json
from collections.abc import Coroutine
from typing import Any

from sandyard_daemon.descriptors import Unread
from sandyard_daemon.http.websocket import Disconnected, WebSocket
from sandyard_daemon.terminal.shells import exit_message
from sandyard_daemon.terminal.terminal import Attachment, Terminal

SLOW_CONSUMER = (1008, "slow consumer")
PIECE = 32 << 10
STALL_SECONDS = 30.0
"""How long a client may take for one message before it counts as a slow consumer."""

_CLOSE_SECONDS = 5.0
_CONNECTED = json.dumps({"type": "control", "status": "connected"})


async def serve_client(socket: WebSocket, terminal: Terminal, *, wants_exit: bool) -> None:
    """From `connected` to the close. `wants_exit`: whether the client understands the `exited` message."""
    attachment, replay = terminal.attach()
    try:
        await socket.send(_CONNECTED)
        for start in range(0, len(replay), PIECE):
            await socket.send(replay[start : start + PIECE])
        code, reason = await first_of(
            _show(socket, terminal, attachment, wants_exit), _watch(attachment), _type(socket, terminal)
        )
        await close(socket, code, reason)
    except Disconnected:
        socket.abort()
    finally:
        terminal.detach(attachment)


async def first_of(*ways: Coroutine[Any, Any, tuple[int, str]]) -> tuple[int, str]:
    """Run them side by side; how the first that ends says to close. The others are over then."""
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return next(task for task in tasks if task in done).result()


async def close(socket: WebSocket, code: int, reason: str) -> None:
    """Say goodbye, to a client that does not read as well, and cut."""
    try:
        async with asyncio.timeout(_CLOSE_SECONDS):
            await socket.close(code, reason)
    except TimeoutError:
        socket.abort()


async def _show(socket: WebSocket, terminal: Terminal, attachment: Attachment, wants_exit: bool) -> tuple[int, str]:
    while not attachment.lateness.is_set():
        attachment.news.clear()
        if data := terminal.take(attachment):
            try:
                async with asyncio.timeout(STALL_SECONDS):
                    await socket.send(data)
            except TimeoutError:
                return SLOW_CONSUMER
        elif terminal.exit is not None:
            said = exit_message(terminal.exit)
            if wants_exit:
                await socket.send(json.dumps({"type": "control", "status": "exited", **said}))
            return 1000, json.dumps(said)
        else:
            await attachment.news.wait()
    return SLOW_CONSUMER


async def _watch(attachment: Attachment) -> tuple[int, str]:
    """Ends for a client that is too late, also while a message to it waits."""
    await attachment.lateness.wait()
    return SLOW_CONSUMER


async def _type(socket: WebSocket, terminal: Terminal) -> tuple[int, str]:
    while True:
        message = await socket.receive()
        try:
            await terminal.type(message.encode("utf-8", "replace") if isinstance(message, str) else message)
        except Unread as error:
            return 1008, json.dumps({"error": str(error)})
