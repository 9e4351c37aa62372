"""The Docker engine from asynchronous code: calls in one bounded thread pool, each stream in a thread of its own."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

from docker import APIClient
from docker.errors import DockerException
from docker.utils import kwargs_from_env, parse_host

from sandyard_runner.runtime.docker.failures import WRAPPED, EngineUnreachable, translate

Result = TypeVar("Result")

Api = Any
"""A `docker.APIClient`. Its published types leave half of its methods untyped and miss parameters of others."""
Item = dict[str, Any]
"""One item of an engine's stream, as it decodes from JSON."""

THREADS = 8
CALL_SECONDS = 120
"""Longest single answer; removing a large container is the slowest."""
KNOCK_SECONDS = 3
STREAM_SECONDS = 1800
"""Longest silence within a pull or build."""


def open_client(timeout_seconds: int | None = CALL_SECONDS) -> APIClient:
    """A client for the engine that the environment names, else the usual socket. Raises `RuntimeFailure`.

    The timeout is for each silence of the engine; `None` waits for ever, which is for event streams.
    """
    # docker-py takes `None`, its published types do not.
    settings: dict[str, Any] = kwargs_from_env() | {"timeout": timeout_seconds}
    try:
        _knock(parse_host(settings.get("base_url")))
        return APIClient(version="auto", max_pool_size=THREADS, **settings)
    except WRAPPED as error:
        raise translate(error, "reach the Docker engine") from error


def _knock(address: str) -> None:
    """Raise `DockerException` when nobody listens at that unix socket: docker-py never closes one that got nowhere."""
    scheme, _, path = address.partition("://")
    if scheme != "http+unix":
        return
    with socket.socket(socket.AF_UNIX) as door:
        door.settimeout(KNOCK_SECONDS)
        try:
            door.connect(path)
        except OSError as error:
            raise DockerException(f"{path}: {error.strerror or error}") from error


class Engine:
    """docker-py with its blocking and its exceptions wrapped once. Make it with `open_engine`."""

    def __init__(self, client: APIClient, pool: ThreadPoolExecutor) -> None:
        self._client = client
        self._pool = pool

    async def call(self, doing: str, work: Callable[[Api], Result]) -> Result:
        """What `work` gives, run in the pool. Raises `RuntimeFailure`; `doing` completes "cannot ..."."""
        job = partial(_wrapped, doing, work, self._client)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CALL_SECONDS + 10):
                return await loop.run_in_executor(self._pool, job)
        except TimeoutError as error:
            raise EngineUnreachable(f"cannot {doing}: the engine does not answer", recoverable=True) from error

    async def stream(self, doing: str, work: Callable[[Api], Iterable[Item]], each: Callable[[Item], None]) -> None:
        """Call `each` in this loop for every item of a long answer, such as the lines of a pull.

        Raises `RuntimeFailure`. When cancelled, the engine's side goes on until its thread notices at the next item.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        cancelled = threading.Event()

        def hand_over(item: Item) -> None:
            loop.call_soon_threadsafe(each, item)

        def read() -> None:
            try:
                _wrapped(doing, partial(_read_all, work, cancelled, hand_over))
            except Exception as error:  # whatever it is, the one who waits must get it
                _settle(loop, done, error)
            else:
                _settle(loop, done, None)

        threading.Thread(target=read, name=f"engine: {doing}", daemon=True).start()
        try:
            await done
        finally:
            cancelled.set()


@asynccontextmanager
async def open_engine() -> AsyncIterator[Engine]:
    """An engine that answered once. Raises `RuntimeFailure` when none does."""
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="engine")
    try:
        client = await asyncio.get_running_loop().run_in_executor(pool, open_client)
        try:
            yield Engine(client, pool)
        finally:
            client.close()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _wrapped(doing: str, work: Callable[..., Result], *arguments: Any) -> Result:
    try:
        return work(*arguments)
    except WRAPPED as error:
        raise translate(error, doing) from error


def _read_all(
    work: Callable[[Api], Iterable[Item]],
    cancelled: threading.Event,
    hand_over: Callable[[Item], object],
) -> None:
    client = open_client(STREAM_SECONDS)
    try:
        for item in work(client):
            if cancelled.is_set():
                return
            hand_over(item)
    finally:
        client.close()


def _settle(loop: asyncio.AbstractEventLoop, done: asyncio.Future[None], failure: Exception | None) -> None:
    def settle() -> None:
        if done.done():
            return
        if failure is None:
            done.set_result(None)
        else:
            done.set_exception(failure)

    loop.call_soon_threadsafe(settle)
