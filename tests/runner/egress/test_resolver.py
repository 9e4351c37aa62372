"""Asking name servers."""

import asyncio
from typing import Any

import pytest

from sandyard_runner.egress import resolver
from sandyard_runner.egress.messages import make_query
from sandyard_runner.egress.outside import Here
from sandyard_runner.egress.resolver import Resolver


class Server(asyncio.DatagramProtocol):
    """Loses so many questions and echoes the next."""

    def __init__(self, lost: int) -> None:
        self.lost = lost
        self.asked = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        self.asked += 1
        if self.asked > self.lost:
            self._transport.sendto(data, address)


async def ask(lost: int) -> Server:
    """The server that was asked, when it has answered."""
    loop, query = asyncio.get_running_loop(), make_query("example.com")
    transport, server = await loop.create_datagram_endpoint(lambda: Server(lost), local_addr=("127.0.0.1", 0))
    try:
        port = transport.get_extra_info("sockname")[1]
        answer = await Resolver([f"127.0.0.1:{port}"], Here()).ask(query)
    finally:
        transport.close()
    assert answer == query
    return server


async def test_a_question_that_is_lost_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Datagrams are lost now and then; a sandbox's request failed for one."""
    monkeypatch.setattr(resolver, "AGAIN_SECONDS", 0.05)
    monkeypatch.setattr(resolver, "ANSWER_SECONDS", 60)
    assert (await ask(lost=2)).asked >= 3


async def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "AGAIN_SECONDS", 0.05)
    monkeypatch.setattr(resolver, "ANSWER_SECONDS", 0.3)
    with pytest.raises(TimeoutError):
        await ask(lost=1_000_000)
