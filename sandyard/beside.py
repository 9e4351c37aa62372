"""What goes on beside a block: work that ends with it, and opening something while something else is opened."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, TypeVar

Value = TypeVar("Value")


@asynccontextmanager
async def meanwhile(work: Coroutine[Any, Any, None], *, name: str) -> AsyncIterator[None]:
    """Do `work` in a task for as long as the block lasts. What it raised by then is raised at the block's end."""
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def beside(context: AbstractAsyncContextManager[Value]) -> AsyncIterator[Awaitable[Value]]:
    """Enter `context` in a task, which also leaves it when the block ends; a block that ends sooner cuts it short.

    Yields what waits for the value, and raises what entering raised.
    """
    entered: asyncio.Future[Value] = asyncio.get_running_loop().create_future()
    # Its error is known, whether or not anybody waits for it.
    entered.add_done_callback(lambda done: done.cancelled() or done.exception())
    leaving = asyncio.Event()
    is_inside = False

    async def hold() -> None:
        nonlocal is_inside
        try:
            async with context as value:
                is_inside = True
                if not entered.done():  # whoever is cancelled while waiting has cancelled it
                    entered.set_result(value)
                await leaving.wait()
        except BaseException as error:
            if is_inside:
                raise
            if isinstance(error, asyncio.CancelledError):
                entered.cancel()
            elif not entered.done():
                entered.set_exception(error)

    task = asyncio.create_task(hold(), name="beside")
    try:
        await asyncio.sleep(0)  # cancelled before it has begun, it could not say that it was told to end
        yield entered
    finally:
        leaving.set()
        if not is_inside:
            task.cancel()
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait({task})
            raise
        task.result()
