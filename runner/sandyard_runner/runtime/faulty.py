"""A runtime with faults on order around a real one: images that cannot be fetched, sandboxes that die."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast
from uuid import uuid4

import structlog

from sandyard.beside import meanwhile
from sandyard.bus import Bus, BusError
from sandyard.faults.rules import PullFails
from sandyard.faults.sharing import (
    CHANNEL_FAULTS,
    Add,
    AnyMessage,
    Hello,
    Remove,
    Strike,
    Struck,
    decode,
    encode,
)
from sandyard.faults.table import Entry, Facts, FaultTable
from sandyard_api.jobs.wire import SandboxSpec
from sandyard_runner.errors import ImageFailure, RuntimeFailure
from sandyard_runner.runtime.contract import PresentState, Runtime, RuntimeEvent

REASONS = {"die": "the sandbox's first process was killed", "out-of-memory": "killed: out of memory"}
"""As runtimes word it when it happens by itself."""

log = structlog.get_logger(__name__)


@asynccontextmanager
async def open_faulty(runtime: Runtime, bus: Bus) -> AsyncIterator[Runtime]:
    """`runtime` with the faults that the bus tells of, for as long as the block lasts."""
    faulty = _around(runtime, bus)
    async with bus.subscribe(CHANNEL_FAULTS) as messages:

        async def listen() -> None:
            async for message in messages:
                if (told := decode(message.payload)) is not None:
                    await faulty.hear(told)

        async with meanwhile(listen(), name="faults"):
            await faulty.say(Hello(sender=faulty.sender))
            yield cast(Runtime, faulty)


def _around(runtime: Runtime, bus: Bus) -> "_Faulty":
    """With everything else of the real runtime, so that it has the same capabilities.

    Properties of a class of its own: from Python 3.12 on `isinstance` with a protocol does not ask `__getattr__`.
    """
    rest = [name for name in dir(runtime) if not name.startswith("_") and name not in vars(_Faulty)]
    kind: type[_Faulty] = type("_Faulty", (_Faulty,), {name: _passed_on(name) for name in rest})
    return kind(runtime, bus)


def _passed_on(name: str) -> property:
    return property(lambda faulty: getattr(faulty._runtime, name))


class _Faulty:
    """What is not here is the real runtime's own."""

    def __init__(self, runtime: Runtime, bus: Bus) -> None:
        self._runtime = runtime
        self._bus = bus
        self._table = FaultTable()
        self._struck: set[asyncio.Queue[RuntimeEvent]] = set()
        self.sender = uuid4().hex

    async def create(self, spec: SandboxSpec) -> None:
        """Raises `ImageFailure` where a rule says so, as for an image that cannot be had."""
        if self._table:
            facts = Facts(spec.organization_id, "", "", None, spec.sandbox_id, spec.name, spec.labels)
            entry = await self._struck_by(facts)
            if entry is not None and isinstance(entry.rule.action, PullFails):
                raise ImageFailure(entry.rule.action.message)
        await self._runtime.create(spec)

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[RuntimeEvent]]:
        """The real runtime's events and those of the deaths that we caused."""
        queue: asyncio.Queue[RuntimeEvent] = asyncio.Queue()
        async with self._runtime.events() as events:

            async def carry() -> None:
                async for event in events:
                    queue.put_nowait(event)

            task = asyncio.create_task(carry(), name="runtime events")
            self._struck.add(queue)
            try:
                yield _drain(queue, task)
            finally:
                self._struck.discard(queue)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def hear(self, message: AnyMessage) -> None:
        """Take in one message of the bus."""
        if isinstance(message, Add) and isinstance(message.rule.action, PullFails):
            if message.id not in self._table:
                self._table.add(message.id, message.organization_id, message.rule)
        elif isinstance(message, Remove):
            for each in message.ids:
                self._table.remove(each)
        elif isinstance(message, Strike):
            await self._strike(message)

    async def say(self, message: AnyMessage) -> None:
        """Tell the proxies."""
        try:
            await self._bus.publish(CHANNEL_FAULTS, encode(message))
        except BusError as error:
            log.warning("hint_lost", channel=CHANNEL_FAULTS, error=str(error))

    async def _struck_by(self, facts: Facts) -> Entry | None:
        try:
            return await self._table.strike(facts, self._bus, on_runner=True)
        except BusError as error:
            raise ImageFailure(f"the ordered fault could not be counted: {error}") from error

    async def _strike(self, order: Strike) -> None:
        try:
            running = {item.sandbox_id for item in await self._runtime.present() if item.state is PresentState.RUNNING}
            if order.sandbox_id not in running:
                return  # another runner's, or it does not run: whoever ordered it says so in time
            await self._runtime.stop(order.sandbox_id, force=True)
        except RuntimeFailure as failure:
            await self.say(Struck(sender=self.sender, token=order.token, problem=failure.message))
            return
        log.info("sandbox_struck", sandbox_id=order.sandbox_id, kind=order.kind)
        for queue in self._struck:
            queue.put_nowait(RuntimeEvent(order.sandbox_id, gone=False, reason=REASONS[order.kind]))
        await self.say(Struck(sender=self.sender, token=order.token))


async def _drain(queue: asyncio.Queue[RuntimeEvent], task: "asyncio.Task[None]") -> AsyncIterator[RuntimeEvent]:
    """Events until the real runtime's end; its failure is raised here as it would be without us."""
    while True:
        waiting = asyncio.ensure_future(queue.get())
        try:
            await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                task.result()
                return
            event = waiting.result()
        finally:
            waiting.cancel()
        yield event
