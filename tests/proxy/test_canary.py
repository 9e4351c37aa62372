"""Numbered lines from a real daemon through a real relay and proxy, while everything between is restarted.

Followers are cut off at random and resume by cursor: every byte once, in order, for each of them.
"""

import asyncio
import contextlib
import random
import re
import socket
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from sandyard.bus import Bus
from sandyard.bus.memory import MemoryBus
from sandyard.bus.redis import RedisBus
from sandyard.clock import SystemClock
from sandyard.serving import listen_tcp, listen_unix, serve
from sandyard_api.jobs.wire import Route
from sandyard_daemon.wire import FrameDecoder, Stream
from sandyard_daemon.wire.markers import Demultiplexer
from sandyard_proxy.app import ProxyOptions, open_proxy
from sandyard_runner.client import HttpRunner
from sandyard_runner.door_http import ask
from sandyard_runner.http_api import create_app
from sandyard_runner.relay import Relay
from sandyard_runner.wire import UsageSample
from tests.conformance.redis_server import RedisServer
from tests.proxy.doubles import KEY, ORGANIZATION, SANDBOX, SECRET, TOKEN, ScriptedControlPlane, plain_control_plane
from tests.runner.conftest import RunningDaemon, StartDaemon, start_daemon

__all__ = ["start_daemon"]  # a fixture

MARKS = {Stream.STDOUT: b"\x01", Stream.STDERR: b"\x02"}
SCRIPT = "i=0; while [ $i -lt {lines} ]; do i=$((i+1)); echo out $i; echo err $i >&2; done"


def no_usage(_sandbox_id: str) -> Sequence[UsageSample]:
    """Of no interest here."""
    return ()


class Record:
    """A log as a follower had it, in one piece: two are equal if their bytes are and each came from the same stream."""

    def __init__(self) -> None:
        self._written = bytearray()
        self._stream: Stream | None = None
        self.length = 0

    def add(self, stream: Stream, data: bytes) -> None:
        """What came next. The lines are text, so that a control character can mark where the stream changes."""
        if stream is not self._stream:
            self._stream = stream
            self._written += MARKS[stream]
        self._written += data
        self.length += len(data)

    def text(self, stream: Stream) -> str:
        """One stream's."""
        pieces = re.findall(MARKS[stream] + rb"([^\x01\x02]*)", self._written)
        return b"".join(pieces).decode()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and self._written == other._written

    __hash__ = None  # type: ignore[assignment]  # it grows


class Stack:
    """Runner, proxy and bus server, each of which can be restarted on its address."""

    def __init__(self, folder: Path, daemon: RunningDaemon, redis: RedisServer | None) -> None:
        self._folder = folder
        self._daemon = daemon
        self._redis = redis
        self._memory = MemoryBus()
        self._parts: dict[str, AsyncExitStack] = {}
        # Bound and not listening, it keeps the port for the proxy while that is away: nobody else is given it.
        self._place = socket.socket()
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._place.bind(("127.0.0.1", 0))
        self.port = int(self._place.getsockname()[1])

    @asynccontextmanager
    async def _bus(self) -> AsyncIterator[Bus]:
        if self._redis is None:
            yield self._memory
            return
        async with RedisBus.open(self._redis.url) as bus:
            yield bus

    async def start(self, part: str) -> None:
        """Start `runner` or `proxy`."""
        stack = AsyncExitStack()
        self._parts[part] = stack
        bus = await stack.enter_async_context(self._bus())
        await (self._start_runner(stack, bus) if part == "runner" else self._start_proxy(stack, bus))

    async def stop(self, part: str) -> None:
        """End it with all its connections."""
        await self._parts.pop(part).aclose()

    async def restart(self, part: str) -> None:
        """End it and start it again; `redis` crashes."""
        if part == "redis" and self._redis is not None:
            self._redis.stop()
            await asyncio.to_thread(self._redis.start)
        elif part != "redis":
            await self.stop(part)
            await self.start(part)

    async def _start_runner(self, stack: AsyncExitStack, bus: Bus) -> None:
        relay = Relay(lambda sandbox_id: self._daemon.door, bus, SystemClock())
        stack.push_async_callback(relay.close)
        app = create_app(relay, lambda sandbox_id: self._daemon.door, no_usage, "token")
        await stack.enter_async_context(serve(app, listen_unix(self._folder / "runner.sock")))

    async def _start_proxy(self, stack: AsyncExitStack, bus: Bus) -> None:
        listener = listen_tcp("127.0.0.1", self.port)
        route = Route(SANDBOX, ORGANIZATION, "started", SECRET, TOKEN, False, f"unix:{self._folder / 'runner.sock'}")
        proxy = await stack.enter_async_context(
            open_proxy(
                control_plane_app=plain_control_plane,
                control_plane=ScriptedControlPlane(route),
                runners=lambda url: HttpRunner(url, "token"),
                bus=bus,
                clock=SystemClock(),
                options=ProxyOptions(doors_dir=self._daemon.door.path.parent.parent),
            )
        )
        await stack.enter_async_context(serve(proxy, listener))

    async def close(self) -> None:
        """End everything."""
        self._place.close()
        for part in list(self._parts):
            await self.stop(part)


async def follow(
    client: aiohttp.ClientSession,
    stack: Stack,
    command: str,
    dice: random.Random,
    longest: int,
) -> Record:
    """All of a log, by a follower who is cut off now and then, after `longest` bytes at most, and resumes by cursor."""
    record = Record()
    while True:
        url = f"http://127.0.0.1:{stack.port}/toolbox/{SANDBOX}/process/session/s/command/{command}/logs"
        until = record.length + dice.randrange(1_000, longest)
        split = Demultiplexer()
        headers = {"Authorization": f"Bearer {KEY}"}
        with contextlib.suppress(aiohttp.ClientError, ConnectionError):
            async with client.ws_connect(f"{url}?follow=true&cursor={record.length}", headers=headers) as followed:
                async for message in followed:
                    for stream, data in [*split.feed(message.data), *split.flush()]:
                        record.add(stream, data)
                    if record.length >= until:
                        break
                else:
                    if followed.close_code == 1000:
                        return record
        await asyncio.sleep(0.01)  # until a part that is being restarted is there again


async def the_file(daemon: RunningDaemon, command: str) -> Record:
    """The log as the daemon has it."""
    record, decoder = Record(), FrameDecoder()
    async with ask(daemon.door, f"/_daemon/logs/s/{command}?cursor=0") as answer:
        async for chunk in answer.chunks:
            for frame in decoder.feed(chunk):
                record.add(frame.stream, frame.payload)
    return record


@asynccontextmanager
async def open_stack(kind: str, folder: Path, daemon: RunningDaemon) -> AsyncIterator[Stack]:
    redis = RedisServer.start_or_skip(folder) if kind == "redis" else None
    stack = Stack(folder, daemon, redis)
    try:
        await stack.start("runner")
        await stack.start("proxy")
        yield stack
    finally:
        await stack.close()
        if redis is not None:
            redis.stop()


async def run_canary(stack: Stack, daemon: RunningDaemon, *, lines: int, restarts: int, longest: int) -> None:
    command = await daemon.run(SCRIPT.format(lines=lines))
    dice = [random.Random(seed) for seed in range(4)]  # noqa: S311  repeatable on purpose
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, sock_read=60)) as client:
        following = [asyncio.create_task(follow(client, stack, command, one, longest)) for one in dice]
        for number in range(restarts):
            await asyncio.sleep(0.15)
            await stack.restart(("runner", "redis", "proxy")[number % 3])
        followed = await asyncio.gather(*following)
    truth = await the_file(daemon, command)
    for stream, name in ((Stream.STDOUT, "out"), (Stream.STDERR, "err")):
        assert truth.text(stream) == "".join(f"{name} {number}\n" for number in range(1, lines + 1))
    assert all(record == truth for record in followed)


def sandbox(start: StartDaemon) -> AbstractAsyncContextManager[RunningDaemon]:
    """The daemon behind the sandbox that the proxy's doubles know."""
    return start(SANDBOX, SECRET)


@pytest.mark.parametrize("kind", ["memory", pytest.param("redis", marks=pytest.mark.redis)])
async def test_every_line_arrives_once_while_everything_is_restarted(
    start_daemon: StartDaemon,
    kind: str,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with sandbox(start_daemon) as daemon, open_stack(kind, Path(folder), daemon) as stack:
            await run_canary(stack, daemon, lines=60_000, restarts=6, longest=200_000)


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_ten_million_lines_arrive_once_while_everything_is_restarted(
    start_daemon: StartDaemon,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with sandbox(start_daemon) as daemon, open_stack("redis", Path(folder), daemon) as stack:
            await run_canary(stack, daemon, lines=5_000_000, restarts=45, longest=4_000_000)
