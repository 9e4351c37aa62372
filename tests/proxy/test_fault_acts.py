"""What faults do to one exchange, on a real server."""

import asyncio
from typing import Any

import aiohttp

from sandyard.serving import listen_tcp, serve
from sandyard_proxy.bench.acting import hang, hang_up, lasting


async def test_a_client_that_left_while_it_hung_is_not_waited_for() -> None:
    """A WebSocket tells only once that it is over."""
    is_over = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        receive = lasting(receive)
        await receive()
        await send({"type": "websocket.accept"})
        await hang(receive, asyncio.Event(), 600)
        await hang_up(scope, receive)
        is_over.set()

    listener = listen_tcp("127.0.0.1", 0)
    async with asyncio.timeout(30), serve(app, listener):
        async with aiohttp.ClientSession() as session:
            socket = await session.ws_connect(f"http://127.0.0.1:{listener.getsockname()[1]}/")
            await socket.close()
        await is_over.wait()


async def test_what_is_received_is_given_once_but_the_end_again_and_again() -> None:
    messages = iter([{"type": "http.request", "body": b"a"}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(messages)

    again = lasting(receive)
    assert [(await again())["type"] for _ in range(4)] == ["http.request", *["http.disconnect"] * 3]
