"""What is remembered of routes and keys, for how long, and what makes it forgotten; activity in batches."""

import asyncio

import pytest

from sandyard.bus.memory import MemoryBus
from sandyard.clock import ManualClock
from sandyard_api.jobs.client import ControlPlaneUnreachable
from sandyard_api.jobs.wire import CHANNEL_KEYS, CHANNEL_ROUTES, Route
from sandyard_proxy.activity import Activity
from sandyard_proxy.errors import ControlPlaneAway
from sandyard_proxy.route_table import KEY_SECONDS, ROUTE_SECONDS, UNKNOWN_SECONDS, RouteTable
from tests.proxy.doubles import KEY, ROUTE, SANDBOX, TOKEN, ScriptedControlPlane, until


class SlowControlPlane(ScriptedControlPlane):
    """Answers when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.let = asyncio.Event()

    async def route(self, key: str) -> Route:
        self.asked.append(key)
        await self.let.wait()
        return self.routes[0]


async def test_a_route_is_remembered_for_seconds() -> None:
    control_plane, clock = ScriptedControlPlane(), ManualClock()
    table = RouteTable(control_plane, clock)
    assert await table.route(SANDBOX) == ROUTE
    await clock.advance(ROUTE_SECONDS - 0.1)
    await table.route(SANDBOX)
    assert control_plane.asked == [SANDBOX]
    await clock.advance(0.2)
    await table.route(SANDBOX)
    assert control_plane.asked == [SANDBOX, SANDBOX]


async def test_unknown_is_remembered_shortly() -> None:
    control_plane, clock = ScriptedControlPlane(), ManualClock()
    table = RouteTable(control_plane, clock)
    assert await table.route("nobody") is None
    assert await table.route("nobody") is None
    assert control_plane.asked == ["nobody"]
    await clock.advance(UNKNOWN_SECONDS)
    await table.route("nobody")
    assert len(control_plane.asked) == 2


async def test_a_key_is_remembered_longer_and_not_kept_itself() -> None:
    control_plane, clock = ScriptedControlPlane(), ManualClock()
    table = RouteTable(control_plane, clock)
    assert (await table.grant(KEY)) == control_plane.grants[KEY]
    await clock.advance(KEY_SECONDS - 1)
    await table.grant(KEY)
    assert control_plane.asked == ["key"]
    assert await table.grant("wrong") is None
    assert KEY not in repr(vars(table._grants))


async def test_many_who_ask_at_once_make_one_request() -> None:
    control_plane = SlowControlPlane()
    table = RouteTable(control_plane, ManualClock())
    asking = [asyncio.create_task(table.route(SANDBOX)) for _ in range(50)]
    await until(lambda: bool(control_plane.asked))
    asking[0].cancel()  # the first goes away; the others still get their answer
    control_plane.let.set()
    assert await asyncio.gather(*asking[1:]) == [ROUTE] * 49
    assert control_plane.asked == [SANDBOX]


async def test_hints_make_routes_and_keys_forgotten() -> None:
    control_plane, bus = ScriptedControlPlane(), MemoryBus()
    table = RouteTable(control_plane, ManualClock())
    watching = asyncio.create_task(table.watch(bus))
    await asyncio.sleep(0)
    for _ in range(2):
        await table.route(SANDBOX)
        await table.route(TOKEN)
        await table.grant(KEY)
        await table.route("nobody")
    assert control_plane.asked == [SANDBOX, TOKEN, "key", "nobody"]
    control_plane.asked.clear()
    await bus.publish(CHANNEL_ROUTES, SANDBOX.encode())
    await bus.publish(CHANNEL_KEYS, b"")
    await asyncio.sleep(0)
    for key in (SANDBOX, TOKEN, "nobody"):
        await table.route(key)
    await table.grant(KEY)
    assert control_plane.asked == [SANDBOX, TOKEN, "nobody", "key"]
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def test_an_answer_that_was_overtaken_by_a_hint_is_not_remembered() -> None:
    control_plane = SlowControlPlane()
    table = RouteTable(control_plane, ManualClock())
    asking = asyncio.create_task(table.route(SANDBOX))
    await until(lambda: bool(control_plane.asked))
    table.forget(SANDBOX)
    control_plane.let.set()
    await asking
    await table.route(SANDBOX)
    assert len(control_plane.asked) == 2


async def test_when_hints_were_lost_everything_is_forgotten() -> None:
    control_plane, bus = ScriptedControlPlane(), MemoryBus(max_messages=2)
    table = RouteTable(control_plane, ManualClock())
    watching = asyncio.create_task(table.watch(bus))
    await asyncio.sleep(0)
    await table.route(SANDBOX)
    for queue in bus._queues[CHANNEL_ROUTES]:
        queue.note_loss()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await table.route(SANDBOX)
    assert len(control_plane.asked) == 2
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def test_a_control_plane_that_is_away_is_told_and_asked_again() -> None:
    control_plane = ScriptedControlPlane()
    table = RouteTable(control_plane, ManualClock())
    control_plane.away = True
    with pytest.raises(ControlPlaneAway):
        await table.route(SANDBOX)
    control_plane.away = False
    assert await table.route(SANDBOX) == ROUTE


async def test_activity_is_delivered_in_batches_and_repeated_while_open() -> None:
    control_plane, clock = ScriptedControlPlane(), ManualClock()
    activity = Activity(control_plane, clock)
    running = asyncio.create_task(activity.run())
    await asyncio.sleep(0)
    with activity.using("a"), activity.using("b", counts=False):
        await clock.advance(2)
        assert set(control_plane.touched) == {"a"}
        first = control_plane.touched["a"]
        await clock.advance(60)
        assert control_plane.touched["a"] > first
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


class AwayControlPlane(ScriptedControlPlane):
    """Takes nothing for a while."""

    async def touch(self, activity: object) -> None:
        if self.away:
            raise ControlPlaneUnreachable
        await super().touch(activity)  # type: ignore[arg-type]


async def test_activity_that_cannot_be_delivered_is_kept() -> None:
    control_plane = AwayControlPlane()
    control_plane.away = True
    activity = Activity(control_plane, ManualClock())
    with activity.using("a"):
        await activity.flush()
    control_plane.away = False
    await activity.flush()
    assert set(control_plane.touched) == {"a"}
