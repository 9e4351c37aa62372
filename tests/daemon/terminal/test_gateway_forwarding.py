"""Ports, unix sockets and files as the SSH gateway asks a daemon for them, by the client that it uses."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sandyard_daemon.client import connect_door
from sandyard_daemon.gateway_client import (
    FileConversation,
    ForwardedStream,
    GatewayClosed,
    GatewayRefused,
    GatewaySocket,
)
from tests.daemon.conftest import SECRET, Daemon, eventually
from tests.daemon.processes import descriptors
from tests.daemon.terminal.gateway import SECONDS, opened

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def reverse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers only when its client has said everything."""
    writer.write((await reader.read())[::-1])
    await writer.drain()
    writer.close()


async def test_a_port_is_reached_with_half_closes(daemon: Daemon) -> None:
    server = await asyncio.start_server(reverse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, opened(daemon, f"/_daemon/forward/{port}") as socket:
        await conversation(ForwardedStream(socket))


async def test_a_unix_socket_is_reached(daemon: Daemon, tmp_path: Path) -> None:
    server = await asyncio.start_unix_server(reverse, tmp_path / "s")
    async with server, opened(daemon, f"/_daemon/forward/unix?path={tmp_path}/s") as socket:
        await conversation(ForwardedStream(socket))


async def conversation(stream: ForwardedStream) -> None:
    data = os.urandom(2 << 20)
    for start in range(0, len(data), 1 << 18):
        await stream.write(data[start : start + (1 << 18)])
    await stream.write_eof()
    back = b""
    while chunk := await stream.read():
        back += chunk
    assert back == data[::-1]


@pytest.mark.parametrize(
    ("target", "status"),
    [("/_daemon/forward/1", 502), ("/_daemon/forward/0", 400), ("/_daemon/forward/unix?path=/no/such", 502)],
)
async def test_where_nothing_answers_the_upgrade_fails(daemon: Daemon, target: str, status: int) -> None:
    with pytest.raises(GatewayRefused) as refused:
        await GatewaySocket.open(connect_door(daemon.door), target, SECRET)
    assert refused.value.status == status


# Files.


@asynccontextmanager
async def file_conversation(daemon: Daemon) -> AsyncIterator[FileConversation]:
    socket = await GatewaySocket.open(connect_door(daemon.door), "/_daemon/fs", SECRET)
    conversation = FileConversation(socket)
    try:
        async with asyncio.timeout(SECONDS):
            yield conversation
    finally:
        await conversation.close()


async def test_a_file_is_written_and_read_at_offsets(daemon: Daemon) -> None:
    async with file_conversation(daemon) as fs:
        opened_file, _ = await fs.ask("open", path="data", access="rw", create=True, mode=0o640)
        handle = opened_file["handle"]
        pieces = [os.urandom(100_000) for _ in range(20)]
        await asyncio.gather(
            *(fs.ask("write", piece, handle=handle, offset=number * 100_000) for number, piece in enumerate(pieces))
        )
        read = await asyncio.gather(
            *(fs.ask("read", handle=handle, offset=number * 100_000, size=100_000) for number in range(21))
        )
        assert [data for _, data in read] == [*pieces, b""]
        attributes, _ = await fs.ask("fstat", handle=handle)
        assert (attributes["size"], stat.S_IMODE(attributes["mode"])) == (2_000_000, 0o640)
        await fs.ask("fsetstat", handle=handle, size=10, mode=0o600, mtime_ns=1_000_000_001)
        await fs.ask("fsync", handle=handle)
        await fs.ask("close", handle=handle)
        with pytest.raises(OSError, match="no such open file"):
            await fs.ask("read", handle=handle, offset=0, size=1)
    found = (daemon.home / "data").stat()
    assert (found.st_size, stat.S_IMODE(found.st_mode), found.st_mtime_ns) == (10, 0o600, 1_000_000_001)


async def test_directories_links_and_renames(daemon: Daemon) -> None:
    async with file_conversation(daemon) as fs:
        await fs.ask("mkdir", path="d", mode=0o750)
        for number in range(600):
            (daemon.home / "d" / f"f{number}").touch()
        (daemon.home / os.fsdecode(b"d/\xff")).touch()
        handle = (await fs.ask("opendir", path="d"))[0]["handle"]
        names: list[str] = []
        while entries := (await fs.ask("readdir", handle=handle))[0]["entries"]:
            assert len(entries) <= 256
            names += [entry["name"] for entry in entries]
        assert sorted(names) == sorted([*(f"f{number}" for number in range(600)), os.fsdecode(b"\xff")])
        await fs.ask("symlink", path="l", target="nowhere")
        assert (await fs.ask("readlink", path="l"))[0]["path"] == "nowhere"
        assert stat.S_ISLNK((await fs.ask("lstat", path="l"))[0]["mode"])
        with pytest.raises(FileNotFoundError):
            await fs.ask("stat", path="l")
        with pytest.raises(FileExistsError):
            await fs.ask("rename", path="d/f0", to="d/f1")
        await fs.ask("rename", path="d/f0", to="d/f1", replace=True)
        await fs.ask("rename", path="d/f2", to="moved")
        await fs.ask("link", path="moved", to="twin")
        assert (await fs.ask("stat", path="twin"))[0]["nlink"] == 2
        await fs.ask("remove", path="twin")
        with pytest.raises(OSError, match="not empty"):
            await fs.ask("rmdir", path="d")
        assert (await fs.ask("realpath", path="."))[0]["path"] == str(daemon.home)
        assert (await fs.ask("statvfs", path="."))[0]["blocks"] > 0


async def test_a_pipe_does_not_hold_up_the_conversation(daemon: Daemon) -> None:
    os.mkfifo(daemon.home / "pipe")
    async with file_conversation(daemon) as fs:
        with pytest.raises(OSError, match="No such device"):
            await fs.ask("open", path="pipe", access="w")
        assert (await fs.ask("stat", path="."))[0]["nlink"] >= 1


@pytest.mark.parametrize(
    "fields",
    [
        {"operation": "nonsense"},
        {"operation": "open"},
        {"operation": "open", "path": "a\0b"},
        {"operation": "open", "path": "x", "access": "z"},
        {"operation": "read", "handle": -1, "offset": 0, "size": 1},
        {"operation": "stat", "path": 7},
        {"operation": "mkdir", "path": "x", "mode": "0755"},
    ],
)
async def test_a_request_that_makes_no_sense_is_an_error_of_its_own(daemon: Daemon, fields: dict[str, Any]) -> None:
    async with file_conversation(daemon) as fs:
        with pytest.raises(OSError, match=r"must|unknown|access"):
            await fs.ask(fields.pop("operation"), **fields)
        assert (await fs.ask("stat", path="."))[0]["size"] >= 0


async def test_what_a_client_left_open_is_closed_with_it(daemon: Daemon) -> None:
    async with file_conversation(daemon) as fs:
        await fs.ask("stat", path=".")
        before = descriptors(daemon)
        for number in range(256):
            await fs.ask("open", path=f"f{number}", access="w", create=True)
        with pytest.raises(OSError, match="too many open files"):
            await fs.ask("opendir", path=".")
        assert descriptors(daemon) == before + 256
    await asyncio.to_thread(eventually, lambda: descriptors(daemon) <= before)


async def test_bytes_that_are_no_message_end_the_conversation(daemon: Daemon) -> None:
    for message in (b"", b"\0\0\0\x02[]", b"\0\0\0\x01{", "text"):
        async with opened(daemon, "/_daemon/fs") as socket:
            await socket.send(message)
            with pytest.raises(GatewayClosed) as closed:
                await socket.receive()
            assert closed.value.code == 1007
