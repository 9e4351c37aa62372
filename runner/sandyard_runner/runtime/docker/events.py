"""Deaths and removals of containers, as the engine tells them, from a thread of its own that survives the engine."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import structlog

from sandyard_runner.errors import RuntimeFailure
from sandyard_runner.runtime.docker.engine import STREAM_SECONDS, Api, open_client
from sandyard_runner.runtime.docker.failures import WRAPPED, translate
from sandyard_runner.runtime.docker.options import LABEL_INSTALLATION, LABEL_SANDBOX

log = structlog.get_logger(__name__)

RECONNECT_SECONDS = 1.0

Told = Callable[[str, str], None]
"""Called in the loop with the sandbox id and `die` or `destroy`."""


class EventReader:
    """Reads the engine's events from `start` to `close`; what happened while the engine was away is asked for after."""

    def __init__(self, installation: str, told: Told) -> None:
        self._filters = {
            "type": "container",
            "event": ["die", "destroy"],
            "label": f"{LABEL_INSTALLATION}={installation}",
        }
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
        await asyncio.wait_for(self._connected.wait(), STREAM_SECONDS)

    async def close(self) -> None:
        """End the thread."""
        self._closing.set()
        if self._stream is not None:
            self._stream.close()
        await asyncio.to_thread(self._thread.join, 5)

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                client = open_client(STREAM_SECONDS)
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
            sandbox_id = event["Actor"]["Attributes"].get(LABEL_SANDBOX)
            if sandbox_id and not self._closing.is_set():
                self._loop.call_soon_threadsafe(self._told, sandbox_id, event["Action"])
