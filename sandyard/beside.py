"""Opening something while something else is opened."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

Value = TypeVar("Value")


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
