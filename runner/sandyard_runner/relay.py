"""Log relay: one tail of the daemon per followed command, whose frames go over the bus while anybody holds a lease."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import quote

import msgspec
import structlog

from sandyard.bus.contract import Bus, BusError
from sandyard.clock import Clock
from sandyard_daemon.wire import EXIT_CODE, FRAME_HEADER, MAX_FRAME_PAYLOAD, Stream
from sandyard_runner.door_http import Door, ask, ask_json
from sandyard_runner.errors import DaemonUnreachable
from sandyard_runner.wire import RelayTick, log_channel

TICK_SECONDS = 0.5
MAX_MESSAGE_BYTES = 1 << 18
RETRY_SECONDS = 0.1
GIVE_UP_SECONDS = 10.0
"""A daemon that cannot be reached for this long is taken for gone."""

FindDoor = Callable[[str], Door | None]
"""The door of a running sandbox by its id."""

log = structlog.get_logger(__name__)


class LogGone(Exception):
    """The daemon knows no such command: it never existed, or its session was deleted."""


class FrameCutter:
    """Cuts a stream of frames into messages of whole frames without taking the frames apart."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self.offset = 0
        """Behind the last payload byte that was seen."""
        self.end: int | None = None
        self.exit_code: int | None = None

    def feed(self, chunk: bytes) -> list[bytes]:
        """The messages that are complete now, none much longer than `MAX_MESSAGE_BYTES`. Raises `ValueError`."""
        pending = self._pending
        pending += chunk
        messages: list[bytes] = []
        start = position = 0
        while len(pending) - position >= FRAME_HEADER.size:
            offset, stream, length = FRAME_HEADER.unpack_from(pending, position)
            if length > MAX_FRAME_PAYLOAD:
                raise ValueError(f"a log frame of {length} bytes")
            after = position + FRAME_HEADER.size + length
            if len(pending) < after:
                break
            if stream == Stream.END:
                self.end, self.exit_code = offset, EXIT_CODE.unpack_from(pending, after - EXIT_CODE.size)[0]
            else:
                self.offset = offset + length
            if after - start > MAX_MESSAGE_BYTES and position > start:
                messages.append(bytes(memoryview(pending)[start:position]))
                start = position
            position = after
        if position > start:
            messages.append(bytes(memoryview(pending)[start:position]))
        del pending[:position]
        return messages


class _Key(msgspec.Struct, frozen=True):
    sandbox_id: str
    session_id: str
    command_id: str

    def target(self, query: str) -> str:
        return f"/_daemon/logs/{quote(self.session_id, safe='')}/{quote(self.command_id, safe='')}?{query}"


class _Tail:
    """The one reader of a command's log on this runner."""

    def __init__(self, key: _Key, find_door: FindDoor, bus: Bus, clock: Clock) -> None:
        self._key = key
        self._find_door = find_door
        self._bus = bus
        self._clock = clock
        self._channel = log_channel(key.sandbox_id, key.command_id)
        self.leases = 0
        self.offset = 0
        self.end: int | None = None
        self.exit_code: int | None = None
        self.lost: str | None = None
        self.attached = asyncio.Event()
        self.over = asyncio.Event()
        self.task = asyncio.create_task(self._run(), name=f"tail {key.sandbox_id} {key.command_id}")

    def tick(self) -> RelayTick:
        """What is known now."""
        return RelayTick(self.offset, self.end, self.exit_code, self.lost)

    async def _run(self) -> None:
        failing_since: float | None = None
        while not self.over.is_set():
            before = self.offset
            try:
                await self._follow()
            except LogGone:
                self._finish("the command's log does not exist any more")
            except DaemonUnreachable as error:
                now = self._clock.monotonic()
                if failing_since is None or self.offset > before:
                    failing_since = now
                if now - failing_since > GIVE_UP_SECONDS or self._find_door(self._key.sandbox_id) is None:
                    self._finish(error.message)
                else:
                    await self._clock.sleep(RETRY_SECONDS)
            except ValueError as error:
                self._finish(f"the daemon sent what is no log: {error}")
        self.attached.set()

    def _finish(self, lost: str | None) -> None:
        self.lost = lost
        self.attached.set()
        self.over.set()

    async def _follow(self) -> None:
        """Put frames on the bus from the log's present end, or from where we were. Raises `DaemonUnreachable`."""
        door = self._find_door(self._key.sandbox_id)
        if door is None:
            raise DaemonUnreachable("the sandbox is not running")
        if not self.attached.is_set() and await self._is_over(door):
            return
        cutter = FrameCutter()
        cutter.offset = self.offset
        async with ask(door, self._key.target(f"cursor={self.offset}&follow=true")) as answer:
            if answer.status == 404:
                raise LogGone
            if answer.status != 200:
                raise DaemonUnreachable(f"the daemon answered status {answer.status} to a follow request")
            self.attached.set()
            async for chunk in answer.chunks:
                for message in cutter.feed(chunk):
                    await self._publish(message)
                self.offset = cutter.offset
                if cutter.end is not None:
                    self.end, self.exit_code = cutter.end, cutter.exit_code
                    self._finish(None)
                    return
        raise DaemonUnreachable("the daemon ended the log without an end record")

    async def _is_over(self, door: Door) -> bool:
        """Look where the log ends now, and whether the command is over already."""
        status, head = await ask_json(door, self._key.target("head"))
        if status == 404:
            raise LogGone
        self.offset = int(head.get("size", 0))
        if head.get("end") is None:
            return False
        self.end, self.exit_code = int(head["end"]), head.get("exit_code")
        self._finish(None)
        return True

    async def _publish(self, message: bytes) -> None:
        try:
            await self._bus.publish(self._channel, message)
        except BusError as error:
            # Followers see from the ticks that they miss something, and read it from the daemon.
            log.warning("log_publish_failed", sandbox_id=self._key.sandbox_id, reason=str(error))


class Relay:
    """The tails of this runner, each alive as long as somebody holds a lease on it."""

    def __init__(self, find_door: FindDoor, bus: Bus, clock: Clock) -> None:
        self._find_door = find_door
        self._bus = bus
        self._clock = clock
        self._tails: dict[_Key, _Tail] = {}

    async def ticks(self, sandbox_id: str, session_id: str, command_id: str) -> AsyncGenerator[RelayTick, None]:
        """Hold a lease while iterating: one tick as soon as the tail reads, two a second, the last at the end."""
        async with self._lease(_Key(sandbox_id, session_id, command_id)) as tail:
            await tail.attached.wait()
            while not tail.over.is_set():
                yield tail.tick()
                await self._tick_or_over(tail)
            yield tail.tick()

    async def close(self) -> None:
        """End every tail."""
        tasks = [tail.task for tail in self._tails.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tails.clear()

    @property
    def tails(self) -> int:
        """How many daemons' logs are being read now."""
        return len(self._tails)

    @asynccontextmanager
    async def _lease(self, key: _Key) -> AsyncIterator[_Tail]:
        tail = self._tails.get(key)
        if tail is None or tail.over.is_set():
            tail = self._tails[key] = _Tail(key, self._find_door, self._bus, self._clock)
        tail.leases += 1
        try:
            yield tail
        finally:
            tail.leases -= 1
            if tail.leases == 0:
                if self._tails.get(key) is tail:
                    del self._tails[key]
                tail.task.cancel()
                await asyncio.wait([tail.task])

    async def _tick_or_over(self, tail: _Tail) -> None:
        over = asyncio.create_task(tail.over.wait())
        pause = asyncio.create_task(self._clock.sleep(TICK_SECONDS))
        try:
            await asyncio.wait((over, pause), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (over, pause):
                task.cancel()
            await asyncio.gather(over, pause, return_exceptions=True)
