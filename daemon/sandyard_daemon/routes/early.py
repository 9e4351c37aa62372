"""Answers that may take longer than a client waits in silence: white space goes ahead of the JSON."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from sandyard_daemon.http.messages import Response, StreamResponse

SILENCE_SECONDS = 5.0
"""OkHttp, and so the Java SDK, gives up after 10 s without a byte."""


async def answer_in_time(
    work: Awaitable[Response | StreamResponse],
    late: Callable[[BaseException], bytes],
    silence_seconds: float = SILENCE_SECONDS,
) -> Response | StreamResponse:
    """The answer of `work` if it comes soon; else a 200 whose body begins with white space, legal before JSON.

    `late` makes the body for an error that comes when the status was already sent.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait([task], timeout=silence_seconds)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if done:
        return task.result()
    return StreamResponse(200, _late_body(task, late, silence_seconds), "application/json")


async def _late_body(
    task: "asyncio.Future[Response | StreamResponse]", late: Callable[[BaseException], bytes], silence_seconds: float
) -> AsyncIterator[bytes]:
    try:
        while not task.done():
            yield b" "
            await asyncio.wait([task], timeout=silence_seconds)
        if (error := task.exception()) is not None:
            yield late(error)
            return
        answer = task.result()
        if isinstance(answer, Response):
            yield answer.body
            return
        async for chunk in answer.chunks:
            yield chunk
    finally:
        task.cancel()
