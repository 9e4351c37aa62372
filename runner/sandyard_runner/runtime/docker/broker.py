"""The network of the engine's machine for a runner that is in a container itself: see `egress.broker`."""

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog

from sandyard_runner.egress.broker import receive, send
from sandyard_runner.errors import RuntimeFailure
from sandyard_runner.runtime.docker.engine import Api, Engine
from sandyard_runner.runtime.docker.failures import Missing
from sandyard_runner.runtime.docker.options import LABEL_INSTALLATION, DockerOptions
from sandyard_runner.runtime.docker.surroundings import OwnContainer, path_on_engine

log = structlog.get_logger(__name__)

START_SECONDS, ANSWER_SECONDS = 30.0, 15.0
FOLDER = "/run/broker"
MEMORY_BYTES, PROCESSES = 128 << 20, 16


class Broker:
    """Implements `Outside`. The container is started by the first need, again when it is gone, and ends with us."""

    def __init__(self, engine: Engine, options: DockerOptions, own: OwnContainer) -> None:
        self._engine = engine
        self._options = options
        self._own = own
        self._lock = asyncio.Lock()
        self._channel: socket.socket | None = None
        self._container = ""

    @property
    def is_running(self) -> bool:
        """As far as known."""
        return self._channel is not None

    async def make_socket(
        self, kind: socket.SocketKind, family: socket.AddressFamily = socket.AF_INET
    ) -> socket.socket:
        """See `Outside`."""
        _, made = await self._ask({"do": "socket", "kind": int(kind), "family": int(family)})
        if made is None:
            raise OSError("no socket came")
        made.setblocking(False)
        return made

    async def read(self) -> Sequence[str]:
        """See `Outside`."""
        answer, _ = await self._ask({"do": "read"})
        files: Sequence[str] = answer["files"]
        return files

    async def load_rules(self, script: str) -> None:
        """Load an nftables script. Raises `RuntimeFailure`."""
        try:
            await self._ask({"do": "nft", "script": script})
        except OSError as error:
            raise RuntimeFailure(f"cannot set the network rules: {error}") from error

    async def close(self) -> None:
        """End it, and return when it is gone."""
        async with self._lock:
            await self._end()

    async def _ask(self, request: dict[str, Any]) -> tuple[dict[str, Any], socket.socket | None]:
        """Raises `OSError`, also with what hindered it there."""
        async with self._lock:
            answer, made = await self._ask_running(request)
        if answer.get("problem"):
            raise OSError(answer["problem"])
        return answer, made

    async def _ask_running(self, request: dict[str, Any]) -> tuple[dict[str, Any], socket.socket | None]:
        """Of one that has ended meanwhile only the asking tells: then another is started. All may be asked twice."""
        if self._channel is not None:
            try:
                return await asyncio.to_thread(_exchange, self._channel, request)
            except OSError:
                await self._end()
        channel = await self._start()
        try:
            return await asyncio.to_thread(_exchange, channel, request)
        except OSError:
            await self._end()
            raise

    async def _start(self) -> socket.socket:
        folder = self._options.data_dir / "broker"
        try:
            listener = await asyncio.to_thread(_listen, folder)
            with listener:
                self._container = await self._engine.call("start the broker", lambda api: self._run(api, folder))
                channel = self._channel = await asyncio.to_thread(_accept, listener)
        except (OSError, RuntimeFailure) as error:
            await self._end()
            raise OSError(f"the container that reaches the machine's network does not start: {error}") from error
        finally:
            (folder / "socket").unlink(missing_ok=True)
        log.info("broker_started")
        return channel

    def _run(self, api: Api, folder: Path) -> str:
        body = {
            "Image": self._own.image,
            "User": "0",
            "Entrypoint": ["python", "-I", "-m", "sandyard_runner.egress.broker", f"{FOLDER}/socket"],
            "Cmd": [],
            "Healthcheck": {"Test": ["NONE"]},
            "Labels": {LABEL_INSTALLATION: self._options.installation},
            "HostConfig": {
                "AutoRemove": True,
                "NetworkMode": "host",
                "CapDrop": ["ALL"],
                "CapAdd": ["NET_ADMIN"],
                "SecurityOpt": ["no-new-privileges:true"],
                "ReadonlyRootfs": True,
                "Memory": MEMORY_BYTES,
                "PidsLimit": PROCESSES,
                "Mounts": [{"Type": "bind", "Source": path_on_engine(folder, self._own), "Target": FOLDER}],
            },
        }
        made: str = api.create_container_from_config(body)["Id"]
        api.start(made)
        return made

    async def _end(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._container:
            container, self._container = self._container, ""
            # It ends by itself; but who takes the stack down looks for what is left at once.
            with contextlib.suppress(Missing, RuntimeFailure):
                await self._engine.call("remove the broker", lambda api: _remove(api, container))


def _listen(folder: Path) -> socket.socket:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / "socket").unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.settimeout(START_SECONDS)
    listener.bind(str(folder / "socket"))
    listener.listen(1)
    return listener


def _accept(listener: socket.socket) -> socket.socket:
    channel, _ = listener.accept()
    channel.settimeout(ANSWER_SECONDS)
    return channel


def _exchange(channel: socket.socket, request: dict[str, Any]) -> tuple[dict[str, Any], socket.socket | None]:
    send(channel, request)
    answer = receive(channel)
    if answer is None:
        raise ConnectionError("the container that reaches the machine's network has ended")
    return answer


def _remove(api: Api, container: str) -> None:
    api.remove_container(container, v=True, force=True)
