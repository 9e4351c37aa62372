"""What is opened beside something else is opened, closed and told of as if it had been opened before it."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sandyard.beside import beside, meanwhile


class Thing:
    """Opens when it may, and says what became of it."""

    def __init__(self) -> None:
        self.may_open = asyncio.Event()
        self.entering: BaseException | None = None
        self.leaving: BaseException | None = None
        self.said: list[str] = []
        self.slow = 0.0

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[str]:
        """The thing."""
        task = asyncio.current_task()
        try:
            try:
                await self.may_open.wait()
            except asyncio.CancelledError:
                if self.entering is None:
                    raise
            if self.entering:
                raise self.entering
            self.said.append("open")
            yield "value"
        finally:
            await asyncio.sleep(self.slow)
            assert asyncio.current_task() is task
            self.said.append("closed")
            if self.leaving:
                raise self.leaving


@pytest.fixture
def thing() -> Thing:
    return Thing()


async def failing_beside(thing: Thing) -> None:
    async with beside(thing.opened()):
        await asyncio.sleep(0.01)
        raise KeyError("block")


async def test_the_block_goes_on_while_it_opens(thing: Thing) -> None:
    async with beside(thing.opened()) as opening:
        await asyncio.sleep(0)
        assert thing.said == []
        thing.may_open.set()
        assert await opening == "value"
        assert thing.said == ["open"]
    assert thing.said == ["open", "closed"]


async def test_it_is_closed_where_nobody_waited_for_it(thing: Thing) -> None:
    thing.may_open.set()
    async with beside(thing.opened()):
        await asyncio.sleep(0)
    assert thing.said == ["open", "closed"]


async def test_what_opening_raises_is_raised_where_it_is_waited_for(thing: Thing) -> None:
    thing.entering = ValueError("not here")
    thing.may_open.set()

    async def block() -> None:
        async with beside(thing.opened()) as opening:
            await asyncio.sleep(0)
            await opening

    with pytest.raises(ValueError, match="not here"):
        await block()
    assert thing.said == ["closed"]


async def test_a_block_that_fails_cuts_the_opening_short(thing: Thing) -> None:
    with pytest.raises(KeyError, match="block"):
        await failing_beside(thing)
    assert thing.said == ["closed"]


@pytest.mark.parametrize("opens_before", [True, False])
async def test_of_two_failures_the_block_s_is_raised_and_the_other_is_no_noise(
    thing: Thing, opens_before: bool, caplog: pytest.LogCaptureFixture
) -> None:
    thing.entering = ValueError("not here")
    if opens_before:
        thing.may_open.set()
    with pytest.raises(KeyError, match="block"):
        await failing_beside(thing)
    gc.collect()
    await asyncio.sleep(0)
    assert caplog.messages == []


async def test_what_closing_raises_is_raised(thing: Thing) -> None:
    thing.leaving = ValueError("does not close")
    thing.may_open.set()
    with pytest.raises(ValueError, match="does not close"):
        async with beside(thing.opened()) as opening:
            await opening
    assert thing.said == ["open", "closed"]


async def test_whoever_is_cancelled_while_waiting_is_cancelled_and_the_opening_with_it(thing: Thing) -> None:
    async def wait() -> None:
        async with beside(thing.opened()) as opening:
            await opening

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert thing.said == ["closed"]


@pytest.mark.parametrize("error", [KeyError("block"), None])
async def test_a_block_may_end_before_the_opening_has_begun(thing: Thing, error: Exception | None) -> None:
    async def block() -> None:
        async with beside(thing.opened()):
            if error is not None:
                raise error

    if error is None:
        await block()
    else:
        with pytest.raises(KeyError, match="block"):
            await block()
    assert thing.said == ["closed"]


async def test_whoever_is_cancelled_while_the_opening_is_cut_short_is_cancelled(thing: Thing) -> None:
    thing.slow = 0.2
    went_on = False

    async def wait() -> None:
        nonlocal went_on
        async with beside(thing.opened()):
            await asyncio.sleep(0)
        went_on = True

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not went_on
    assert len(asyncio.all_tasks()) == 1


async def test_work_goes_on_for_as_long_as_the_block_lasts() -> None:
    said: list[str] = []

    async def work() -> None:
        try:
            said.append("works")
            await asyncio.Event().wait()
        finally:
            said.append("ended")

    async with meanwhile(work(), name="work"):
        await asyncio.sleep(0)
        assert said == ["works"]
    assert said == ["works", "ended"]


async def test_work_that_failed_is_told_of_at_the_end_of_the_block() -> None:
    async def work() -> None:
        raise ValueError("broken")

    async def block() -> None:
        async with meanwhile(work(), name="work"):
            await asyncio.sleep(0)

    with pytest.raises(ValueError, match="broken"):
        await block()
