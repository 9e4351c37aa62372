"""What every bus promises, over each implementation; and how the Redis one behaves when its server goes away."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from sandyard.bus import Bus, BusError, Message
from sandyard.bus.memory import MemoryBus
from sandyard.bus.redis import RedisBus
from tests.conformance.redis_server import RedisServer

OpenBus = Callable[..., AbstractAsyncContextManager[Bus]]


@pytest.fixture(scope="module")
def shared_redis() -> Iterator[Callable[[], RedisServer]]:
    servers: list[RedisServer] = []
    with tempfile.TemporaryDirectory() as folder:

        def get() -> RedisServer:
            if not servers:
                servers.append(RedisServer.start_or_skip(Path(folder)))
            return servers[0]

        yield get
        for server in servers:
            server.stop()


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
def open_bus(request: pytest.FixtureRequest, shared_redis: Callable[[], RedisServer]) -> OpenBus:
    if request.param == "redis":
        url = shared_redis().url
        return lambda **limits: RedisBus.open(url, **limits)

    @asynccontextmanager
    async def open_memory(**limits: int) -> AsyncIterator[Bus]:
        yield MemoryBus(**limits)

    return open_memory


async def test_a_message_reaches_every_subscriber_of_its_channel_unchanged(open_bus: OpenBus) -> None:
    payload = bytes(range(256)) * 3 + b"\r\n$-1\r\n"
    async with (
        open_bus() as bus,
        bus.subscribe("a") as one,
        bus.subscribe("a", "b") as two,
        bus.subscribe("b") as other,
    ):
        await bus.publish("a", payload)
        assert await one.next(30) == Message("a", payload)
        assert await two.next(30) == Message("a", payload)
        assert await other.next(0.05) is None


async def test_messages_of_a_channel_keep_their_order(open_bus: OpenBus) -> None:
    async with open_bus() as bus, bus.subscribe("a") as subscription:
        for number in range(500):
            await bus.publish("a", b"%d" % number)
        received = [await subscription.next(30) for _ in range(500)]
        assert [message and message.payload for message in received] == [b"%d" % n for n in range(500)]
        assert subscription.lost == 0


async def test_nothing_published_after_entering_is_missed(open_bus: OpenBus) -> None:
    async with open_bus() as bus:
        for number in range(50):
            async with bus.subscribe("again") as subscription:
                await bus.publish("again", b"%d" % number)
                assert await subscription.next(30) == Message("again", b"%d" % number)


async def test_each_number_of_a_count_is_given_once_whoever_counts(open_bus: OpenBus) -> None:
    async with open_bus() as bus:
        await bus.forget("requests")
        assert await bus.counted("requests") == {}
        given = await asyncio.gather(*(bus.count("requests", "seen") for _ in range(50)))
        assert sorted(given) == list(range(1, 51))
        assert await bus.count("requests", "fired") == 1
        assert await bus.counted("requests") == {"seen": 50, "fired": 1}
        await bus.forget("requests", "never-there")
        assert await bus.count("requests", "seen") == 1
        await bus.forget("requests")


async def test_a_cancelled_publisher_ends(open_bus: OpenBus) -> None:
    async def publish_on(bus: Bus) -> None:
        while True:
            await bus.publish("a", b"x")
            await asyncio.sleep(0)

    async with open_bus() as bus:
        for number in range(300):
            task = asyncio.create_task(publish_on(bus))
            for _ in range(40 + number % 40):  # wherever the publisher is just then
                await asyncio.sleep(0)
            task.cancel()
            done, _ = await asyncio.wait([task], timeout=30)
            assert done, f"cancelling number {number} was not heard"


async def test_an_empty_payload_is_a_message(open_bus: OpenBus) -> None:
    async with open_bus() as bus, bus.subscribe("a") as subscription:
        await bus.publish("a", b"")
        assert await subscription.next(30) == Message("a", b"")


async def test_publishing_to_nobody_succeeds(open_bus: OpenBus) -> None:
    async with open_bus() as bus:
        await bus.publish("nobody", b"x")
        await bus.ping()


async def test_what_was_published_before_entering_is_not_seen(open_bus: OpenBus) -> None:
    async with open_bus() as bus:
        await bus.publish("a", b"early")
        async with bus.subscribe("a") as subscription:
            await bus.publish("a", b"late")
            assert await subscription.next(30) == Message("a", b"late")


async def test_leaving_one_subscription_leaves_the_others_alone(open_bus: OpenBus) -> None:
    async with open_bus() as bus, bus.subscribe("a") as stays:
        async with bus.subscribe("a"):
            pass
        await bus.publish("a", b"x")
        assert await stays.next(30) == Message("a", b"x")


async def test_waiting_ends_after_its_timeout(open_bus: OpenBus) -> None:
    async with open_bus() as bus, bus.subscribe("a") as subscription:
        assert await subscription.next(0.01) is None
        assert await subscription.next(0) is None


async def test_a_slow_subscriber_loses_messages_and_is_told(open_bus: OpenBus) -> None:
    async with open_bus(max_messages=10) as bus, bus.subscribe("a") as slow, bus.subscribe("a", "end") as quick:
        for number in range(100):
            await bus.publish("a", b"%d" % number)
            assert await quick.next(30) is not None
        assert slow.lost >= 90
        kept = []
        while (message := await slow.next(0.1)) is not None:
            kept.append(int(message.payload))
        assert kept == sorted(kept)
        assert kept[-1] == 99, "the newest message is the one kept"
        assert len(kept) + slow.lost == 100


async def test_a_queue_is_bounded_in_bytes_too(open_bus: OpenBus) -> None:
    async with open_bus(max_bytes=10_000) as bus, bus.subscribe("a") as slow, bus.subscribe("a") as quick:
        for _ in range(20):
            await bus.publish("a", bytes(1_000))
            assert await quick.next(30) is not None
        assert slow.lost >= 10


async def test_iterating_gives_message_after_message(open_bus: OpenBus) -> None:
    async with open_bus() as bus, bus.subscribe("a") as subscription:
        await bus.publish("a", b"1")
        await bus.publish("a", b"2")
        seen: list[bytes] = []
        async with asyncio.timeout(30):
            async for message in subscription:
                seen.append(message.payload)
                if len(seen) == 2:
                    break
        assert seen == [b"1", b"2"]


async def test_a_hundred_subscribers_of_one_channel_get_everything(open_bus: OpenBus) -> None:
    async def count(gate: asyncio.Barrier) -> int:
        async with bus.subscribe("crowd") as subscription:
            await gate.wait()
            total = 0
            while total < 200 and await subscription.next(30) is not None:
                total += 1
            return total + subscription.lost

    async with open_bus() as bus:
        gate = asyncio.Barrier(101)
        readers = [asyncio.create_task(count(gate)) for _ in range(100)]
        await gate.wait()
        for _ in range(200):
            await bus.publish("crowd", bytes(100))
        assert await asyncio.gather(*readers) == [200] * 100


async def test_cancelled_subscriptions_leave_nothing_behind(open_bus: OpenBus) -> None:
    async def wait_for_ever(entered: asyncio.Event) -> None:
        async with bus.subscribe("a") as subscription:
            entered.set()
            await subscription.next()

    async with open_bus() as bus:
        entered = asyncio.Event()
        reader = asyncio.create_task(wait_for_ever(entered))
        await entered.wait()
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        async with bus.subscribe("a") as subscription:
            await bus.publish("a", b"x")
            assert await subscription.next(30) == Message("a", b"x")


@pytest.fixture
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer.start_or_skip(Path(folder))
        yield server
        server.stop()


async def publish_when_up(bus: Bus, channel: str, payload: bytes) -> None:
    """Publish once a subscription is in force, which means that the shared connection is back."""
    async with asyncio.timeout(60):
        while True:
            try:
                async with bus.subscribe(channel):
                    return await bus.publish(channel, payload)
            except BusError:
                await asyncio.sleep(0.01)


@pytest.mark.redis
async def test_a_redis_subscription_survives_a_restart_of_the_server_and_tells_of_it(own_redis: RedisServer) -> None:
    async with RedisBus.open(own_redis.url) as bus, bus.subscribe("a") as subscription:
        own_redis.stop()
        assert await subscription.next(10) is None
        assert subscription.lost == 1
        with pytest.raises(BusError):
            await bus.publish("a", b"x")
        own_redis.start()
        await publish_when_up(bus, "a", b"back")
        while (message := await subscription.next(10)) is None:
            assert subscription.lost < 100
        assert message == Message("a", b"back")


@pytest.mark.redis
async def test_subscribing_without_a_server_is_refused(tmp_path: Path) -> None:
    async with RedisBus.open(f"unix://{tmp_path}/nobody.sock") as bus:
        with pytest.raises(BusError):
            await bus.ping()
        with pytest.raises(BusError):
            async with bus.subscribe("a"):
                pytest.fail("entered")
