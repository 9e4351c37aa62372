"""The name server of sandboxes with a domain list: it knows their domains only, and opens the way to its answers."""

import asyncio
import struct
from collections.abc import Awaitable, Callable
from typing import cast

import msgspec
import structlog

from sandyard_runner.egress.messages import (
    AAAA,
    HTTPS,
    REFUSED,
    SERVER_FAILURE,
    SVCB,
    A,
    BadMessage,
    Question,
    addresses,
    empty_answer,
    read_question,
)
from sandyard_runner.egress.outside import Outside, open_addresses
from sandyard_runner.egress.policy import Policy
from sandyard_runner.egress.resolver import Resolver
from sandyard_runner.errors import RuntimeFailure

log = structlog.get_logger(__name__)

MIN_SECONDS, MAX_SECONDS = 30, 3600
"""Bounds of how long an address is open after an answer: clients connect a moment after the shortest lifetimes."""
QUERIES_AT_ONCE = 64
STREAM_SECONDS = 10.0
OTHER_FAMILIES = (AAAA, SVCB, HTTPS)
"""Kinds that lead to addresses which stay closed: there are none, so that clients take IPv4."""

Admit = Callable[[list[tuple[str, int]]], Awaitable[None]]
"""Opens the way to addresses, each for so many seconds. Raises `RuntimeFailure`."""


class Client(msgspec.Struct, frozen=True):
    """One sandbox, to our name server and proxy."""

    policy: Policy
    admit: Admit


FindClient = Callable[[str], Client | None]
"""By the source address; `None` is nobody we serve."""


class NameServer(asyncio.DatagramProtocol):
    """Serves queries of both transports. `serve_stream` is the callback of a stream server."""

    def __init__(self, find: FindClient, resolver: Resolver, outside: Outside) -> None:
        self._find = find
        self._resolver = resolver
        self._outside = outside
        self._transport: asyncio.DatagramTransport | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Kept for the answers."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """A query; beyond the bound it is dropped, and the client asks again."""
        if len(self._tasks) < QUERIES_AT_ONCE:
            task = asyncio.create_task(self._reply(data, addr))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End what is being answered."""
        if self._transport is not None:
            self._transport.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def serve_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One query of a TCP connection."""
        try:
            async with asyncio.timeout(STREAM_SECONDS):
                size = struct.unpack("!H", await reader.readexactly(2))[0]
                answer = await self._answer(await reader.readexactly(size), writer.get_extra_info("peername")[0])
                if answer is not None:
                    writer.write(struct.pack("!H", len(answer)) + answer)
                    await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            log.debug("name_query_cut_short")
        finally:
            writer.close()

    async def _reply(self, query: bytes, address: tuple[str, int]) -> None:
        answer = await self._answer(query, address[0])
        if answer is not None and self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(answer, address)

    async def _answer(self, query: bytes, source: str) -> bytes | None:
        client = self._find(source)
        try:
            question = read_question(query)
        except BadMessage:
            return None
        if client is None or not client.policy.allows_name(question.name):
            return empty_answer(query, question, REFUSED)
        if question.kind in OTHER_FAMILIES:
            return empty_answer(query, question)
        try:
            return await self._look_up(query, question, client)
        except (OSError, BadMessage, RuntimeFailure) as error:
            log.warning("name_not_answered", name=question.name, reason=str(error))
            return empty_answer(query, question, SERVER_FAILURE)

    async def _look_up(self, query: bytes, question: Question, client: Client) -> bytes:
        answer = await self._resolver.ask(query)
        if question.kind == A:
            found = dict(addresses(answer))
            opened = [
                (address, min(max(found[address], MIN_SECONDS), MAX_SECONDS))
                for address in await open_addresses(self._outside, list(found))
            ]
            # Where an outbound proxy is named, it is the only way to the domains of the list.
            if opened and client.policy.outbound_proxy is None:
                await client.admit(opened)
        return answer
