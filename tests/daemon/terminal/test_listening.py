"""Ports and unix sockets in the sandbox that somebody outside serves, by the client that the gateway uses."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sandyard_daemon.client import connect_door
from sandyard_daemon.gateway_client import ForwardedStream, GatewayRefused, GatewaySocket, RemoteListener
from tests.daemon.conftest import SECRET, Daemon, eventually
from tests.daemon.terminal.gateway import opened


@asynccontextmanager
async def listening(daemon: Daemon, query: str) -> AsyncIterator[RemoteListener]:
    async with opened(daemon, f"/_daemon/listen?{query}") as socket:
        yield await RemoteListener.start(socket)


async def taken(daemon: Daemon, number: str) -> ForwardedStream:
    door = connect_door(daemon.door)
    return ForwardedStream(await GatewaySocket.open(door, f"/_daemon/forward/accepted?id={number}", SECRET))


async def test_a_connection_inside_is_told_of_and_carried_with_half_closes(daemon: Daemon) -> None:
    data = os.urandom(2 << 20)
    async with listening(daemon, "port=0") as listener:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        accepted = await listener.accept()
        assert accepted.origin == writer.get_extra_info("sockname")
        stream = await taken(daemon, accepted.id)
        writer.write(data)
        writer.write_eof()
        found = b""
        while piece := await stream.read():
            found += piece
        assert found == data
        await stream.write(b"answer")
        await stream.write_eof()
        assert await reader.read() == b"answer"
        writer.close()
        await stream.close()


async def test_a_unix_socket_goes_with_who_listens_and_what_came_in_its_place_does_not(
    daemon: Daemon, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    async with listening(daemon, f"path={path}") as listener:
        _, writer = await asyncio.open_unix_connection(path)
        assert (await listener.accept()).origin == ("", 0)
        writer.close()
    eventually(lambda: not path.exists())
    async with listening(daemon, f"path={path}"):
        path.unlink()
        path.write_text("mine")
    async with listening(daemon, "port=0"):  # the daemon has done with the one before
        assert path.read_text() == "mine"


async def test_a_port_is_free_again_when_nobody_holds_it(daemon: Daemon) -> None:
    async with listening(daemon, "port=0") as listener:
        port = listener.port
        with pytest.raises(GatewayRefused) as refused:
            await GatewaySocket.open(connect_door(daemon.door), f"/_daemon/listen?port={port}", SECRET)
        assert refused.value.status == 502
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await listener.accept()
    assert await reader.read() == b""  # nobody took it, and nobody will
    writer.close()
    async with asyncio.timeout(60):
        while True:
            try:
                async with listening(daemon, f"port={port}"):
                    return
            except GatewayRefused:
                continue


@pytest.mark.parametrize(
    ("query", "status"),
    [
        *(("", 400), ("port=x", 400), ("port=65536", 400), ("port=-1", 400), ("path=relative", 400)),
        *(("path=/no/such/place", 502), ("path=/tmp", 502), (f"path=/{'a' * 200}", 502)),
    ],
)
async def test_what_cannot_be_listened_on_is_refused(daemon: Daemon, query: str, status: int) -> None:
    with pytest.raises(GatewayRefused) as refused:
        await GatewaySocket.open(connect_door(daemon.door), f"/_daemon/listen?{query}", SECRET)
    assert refused.value.status == status


async def test_an_unknown_connection_cannot_be_taken(daemon: Daemon) -> None:
    with pytest.raises(GatewayRefused) as refused:
        await taken(daemon, "nobody")
    assert refused.value.status == 404
