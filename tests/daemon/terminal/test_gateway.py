"""What the SSH gateway and the web terminal ask of a daemon, by the client that they use."""

import asyncio
import json
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sandyard_daemon.client import connect_door
from sandyard_daemon.gateway_client import (
    Execution,
    Exited,
    FileConversation,
    ForwardedStream,
    GatewayClosed,
    GatewayRefused,
    GatewaySocket,
    Pty,
)
from tests.contract.wire_client import Refused
from tests.daemon.conftest import SECRET, Daemon, Starter, eventually
from tests.daemon.terminal.screens import lives, memory, open_files, tree

SECONDS = 30


@asynccontextmanager
async def opened(daemon: Daemon, target: str) -> AsyncIterator[GatewaySocket]:
    socket = await GatewaySocket.open(connect_door(daemon.door), target, SECRET)
    try:
        async with asyncio.timeout(SECONDS):
            yield socket
    finally:
        await socket.close()


async def result(execution: Execution) -> tuple[bytes, bytes, Exited]:
    """Both streams to the end, and the end."""
    streams = {1: b"", 2: b""}
    async for stream, data in execution.outputs():
        streams[stream] += data
    assert execution.exited is not None
    return streams[1], streams[2], execution.exited


async def until(execution: Execution, text: bytes) -> bytes:
    """Standard output up to where `text` was shown."""
    seen = b""
    async for _, data in execution.outputs():
        seen += data
        if text in seen:
            return seen
    raise AssertionError(seen)


async def exec_(daemon: Daemon, command: str, **options: Any) -> tuple[bytes, bytes, Exited]:
    async with opened(daemon, "/_daemon/exec") as socket:
        return await result(await Execution.start(socket, command, **options))


async def test_a_command_has_its_streams_apart_and_a_status(daemon: Daemon) -> None:
    out, err, end = await exec_(daemon, "echo out; echo err >&2; pwd; echo $A; exit 3", cwd="/usr", envs={"A": "b c"})
    assert (out, err, end) == (b"out\n/usr\nb c\n", b"err\n", Exited(3))


async def test_input_is_exact_and_its_end_is_told(daemon: Daemon) -> None:
    data = os.urandom(3 << 20)
    async with opened(daemon, "/_daemon/exec") as socket:
        execution = await Execution.start(socket, "cat")

        async def write() -> None:
            for start in range(0, len(data), 1 << 19):
                await execution.write(data[start : start + (1 << 19)])
            await execution.end_input()

        writing = asyncio.create_task(write())
        out, _, end = await result(execution)
        await writing
    assert out == data
    assert end == Exited(0)


async def test_signals_reach_the_program_and_its_death_by_one_is_told(daemon: Daemon) -> None:
    async with opened(daemon, "/_daemon/exec") as socket:
        execution = await Execution.start(socket, "trap 'echo caught' USR1; echo on; while :; do sleep 0.05; done")
        await until(execution, b"on\n")
        await execution.send_signal("USR1")
        await until(execution, b"caught\n")
        await execution.send_signal("KILL")
        assert (await result(execution))[2] == Exited(137, "KILL")


async def test_d36_a_command_may_have_a_terminal(daemon: Daemon) -> None:
    command = "tty >/dev/null && stty size; echo $TERM; read line; stty size; exit 4"
    async with opened(daemon, "/_daemon/exec") as socket:
        execution = await Execution.start(socket, command, pty=Pty(100, 30, "vt220"))
        assert await until(execution, b"vt220\r\n") == b"30 100\r\nvt220\r\n"
        await execution.resize(90, 20)
        await execution.write(b"\n")
        assert await result(execution) == (b"\r\n20 90\r\n", b"", Exited(4))


async def test_d36_a_shell_tells_its_real_status(daemon: Daemon) -> None:
    async with opened(daemon, "/_daemon/exec") as socket:
        execution = await Execution.start(socket, None, pty=Pty(), login=True)
        await execution.write(b"shopt login_shell; exit 9\n")
        out, _, end = await result(execution)
    assert b"login_shell    \ton" in out
    assert end == Exited(9)


async def test_d36_a_program_ends_with_its_client(daemon: Daemon) -> None:
    async with opened(daemon, "/_daemon/exec") as socket:
        execution = await Execution.start(socket, "setsid sleep 1000 & echo on; sleep 1001")
        await until(execution, b"on\n")
        assert tree(daemon)
    await asyncio.to_thread(eventually, lambda: tree(daemon) == [])


async def test_what_a_finished_command_left_in_the_background_goes_on_until_the_daemon_stops(
    start_daemon: Starter,
) -> None:
    daemon = start_daemon()
    _, _, end = await exec_(daemon, "sleep 1000 >/dev/null 2>&1 &")
    assert end == Exited(0)
    left = tree(daemon)
    assert left
    daemon.process.terminate()
    assert await asyncio.to_thread(daemon.process.wait, 10) == 0
    assert not [pid for pid in left if lives(pid)]


async def test_a_helper_that_holds_the_pipes_does_not_hold_the_end(daemon: Daemon) -> None:
    out, _, end = await exec_(daemon, "sleep 1000 & echo on; (sleep 0.05; echo late) & exit 5")
    assert (out, end) == (b"on\nlate\n", Exited(5))


async def test_a_client_that_does_not_read_holds_the_program_back(daemon: Daemon) -> None:
    async with opened(daemon, "/_daemon/exec") as socket:
        execution = await Execution.start(socket, "head -c 100000000 /dev/zero | tr '\\0' x; echo over >&2")
        await asyncio.to_thread(eventually, lambda: tree(daemon))
        assert int(memory(daemon, "VmHWM")) < 45_000
        total = 0
        async for _, data in execution.outputs():
            total += len(data)
        assert total == 100_000_005
    assert int(memory(daemon, "VmHWM")) < 45_000


@pytest.mark.parametrize(
    "order",
    ["no JSON", "[]", '{"command": 7}', '{"cwd": "/no/such"}', '{"pty": {"cols": 2000}}', '{"envs": {"=": ""}}'],
)
async def test_an_order_that_makes_no_sense_is_refused(daemon: Daemon, order: str) -> None:
    async with opened(daemon, "/_daemon/exec") as socket:
        await socket.send(order)
        assert json.loads(await socket.receive())["type"] == "error"
        with pytest.raises(GatewayClosed):
            await socket.receive()
    assert tree(daemon) == []


@pytest.mark.parametrize("message", ["{}", "null", b"\x07x", '{"type": "signal", "name": "NOPE"}'])
async def test_a_message_that_makes_no_sense_ends_the_conversation(daemon: Daemon, message: str | bytes) -> None:
    async with opened(daemon, "/_daemon/exec") as socket:
        await Execution.start(socket, "sleep 1000")
        await socket.send(message)
        with pytest.raises(GatewayClosed) as closed:
            await socket.receive()
        assert closed.value.code == 1007
    await asyncio.to_thread(eventually, lambda: tree(daemon) == [])


# The web terminal.


async def shown(socket: GatewaySocket, text: str) -> str:
    seen = ""
    while text not in seen:
        message = await socket.receive()
        assert isinstance(message, str), "the page gets text"
        seen += message
    return seen


async def test_the_web_terminal_shows_text_and_takes_sizes(daemon: Daemon) -> None:
    async with opened(daemon, "/_daemon/terminal?cols=90&rows=20") as socket:
        await socket.send(b"stty size; printf 'h\\303\\251\\377\\n'\n")
        assert "h\u00e9\ufffd\r\n" in await shown(socket, "\ufffd\r\n")
        await socket.send('{"rows": 33, "cols": 111}')
        await socket.send("stty size; exit 6\n")
        await shown(socket, "33 111\r\n")
        with pytest.raises(GatewayClosed) as closed:
            await shown(socket, "never shown")
    assert (closed.value.code, json.loads(closed.value.reason)["exitCode"]) == (1000, 6)


async def test_d36_only_a_whole_size_is_a_resize(daemon: Daemon) -> None:
    async with opened(daemon, "/_daemon/terminal?cols=90&rows=20") as socket:
        # What is typed before the program reads would be the shell's to edit, the end of file too.
        await socket.send("PS1=; stty -echo; echo $((40 + 2)); cat\n")
        await shown(socket, "42\r\n")
        await asyncio.to_thread(eventually, lambda: len(tree(daemon)) >= 3)
        typed = ["{}", "null", '{"rows": 0, "cols": 0}', '{"rows": 5}', '{"rows": 5, "cols": 5, "x": 1}']
        for each in typed:
            await socket.send(each)
            await socket.send("\n")
            await shown(socket, each)
        await socket.send(b"\x04")
        await socket.send("stty size\n")
        await shown(socket, "20 90\r\n")


async def test_d36_the_web_terminals_shell_ends_with_its_socket(daemon: Daemon) -> None:
    async with opened(daemon, "/_daemon/terminal") as socket:
        await socket.send("sleep 1000\n")
        await asyncio.to_thread(eventually, lambda: len(tree(daemon)) >= 3)
    await asyncio.to_thread(eventually, lambda: tree(daemon) == [])
    await asyncio.to_thread(eventually, lambda: daemon.get("/process/pty").json == {"sessions": []})


# Ports and sockets.

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
        before = open_files(daemon)
        for number in range(256):
            await fs.ask("open", path=f"f{number}", access="w", create=True)
        with pytest.raises(OSError, match="too many open files"):
            await fs.ask("opendir", path=".")
        assert open_files(daemon) == before + 256
    await asyncio.to_thread(eventually, lambda: open_files(daemon) <= before)


async def test_bytes_that_are_no_message_end_the_conversation(daemon: Daemon) -> None:
    for message in (b"", b"\0\0\0\x02[]", b"\0\0\0\x01{", "text"):
        async with opened(daemon, "/_daemon/fs") as socket:
            await socket.send(message)
            with pytest.raises(GatewayClosed) as closed:
                await socket.receive()
            assert closed.value.code == 1007


def test_the_door_asks_for_its_secret_here_too(daemon: Daemon) -> None:
    for path in ("/_daemon/exec", "/_daemon/terminal", "/_daemon/forward/80", "/_daemon/fs"):
        with pytest.raises(Refused) as refused:
            daemon.websocket(path, headers={"X-Sandyard-Door": "guess"})
        assert refused.value.status == 401
        assert daemon.get(path).status == 400


async def test_a_program_that_does_not_read_is_still_signalled_and_its_client_waits_for_room(daemon: Daemon) -> None:
    command = "on=1; trap 'on=' USR1; echo on; while [ $on ]; do sleep 0.05; done; wc -c"
    async with opened(daemon, "/_daemon/exec") as socket:
        execution = await Execution.start(socket, command)
        await until(execution, b"on\n")

        async def write() -> None:
            for _ in range(32):
                await execution.write(bytes(1 << 18))
            await execution.end_input()

        writing = asyncio.create_task(write())
        await execution.send_signal("USR1")
        out, _, end = await result(execution)
        await writing
    assert (int(out), end) == (8 << 20, Exited(0))


async def test_writing_to_a_program_that_has_ended_is_told(daemon: Daemon) -> None:
    async with opened(daemon, "/_daemon/exec") as socket:
        execution = await Execution.start(socket, "exit 0")
        await result(execution)
        with pytest.raises(GatewayClosed):
            await execution.write(b"late")
