"""What the engine tells of containers, from a thread of its own that survives the engine."""

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog

from sandyard_runner.errors import RuntimeFailure
from sandyard_runner.runtime.docker.engine import Api, open_client
from sandyard_runner.runtime.docker.failures import WRAPPED, translate

log = structlog.get_logger(__name__)

RECONNECT_SECONDS = 1.0
START_SECONDS = 60

Told = Callable[[str, Mapping[str, str]], None]
"""Called in the loop with the action, such as `die`, and the container's labels."""


class EventReader:
    """Reads the engine's events from `start` to `close`; what happened while the engine was away is asked for after."""

    def __init__(self, told: Told, *, actions: Sequence[str], labels: Sequence[str]) -> None:
        self._filters = {"type": "container", "event": list(actions), "label": list(labels)}
        self._told = told
        self._closing = threading.Event()
        self._stream: Any = None
        self._since: int | None = None
        self._thread = threading.Thread(target=self._run, name="engine: events", daemon=True)
        self._loop = asyncio.get_running_loop()
        self._connected = asyncio.Event()

    async def start(self) -> None:
        """Return when the engine is listened to: what happens from here on is told."""
        self._thread.start()
        async with asyncio.timeout(START_SECONDS):
            await self._connected.wait()

    async def close(self) -> None:
        """End the thread."""
        self._closing.set()
        if self._stream is not None:
            self._stream.close()
        await asyncio.to_thread(self._thread.join, 5)

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                client = open_client(None)
                try:
                    self._read(client)
                finally:
                    client.close()
            except RuntimeFailure as failure:
                log.warning("engine_events_lost", reason=failure.message)
            except WRAPPED as error:
                log.warning("engine_events_lost", reason=translate(error, "read events").message)
            self._closing.wait(RECONNECT_SECONDS)

    def _read(self, client: Api) -> None:
        self._stream = client.events(since=self._since, filters=self._filters, decode=True)
        if self._closing.is_set():
            return
        self._loop.call_soon_threadsafe(self._connected.set)
        for event in self._stream:
            self._since = event["time"]
            if not self._closing.is_set():
                self._loop.call_soon_threadsafe(self._told, event["Action"], event["Actor"]["Attributes"])
