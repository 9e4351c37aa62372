"""Programs and the web terminal's shells, asked of a daemon by the client that the SSH gateway uses."""

import asyncio
import json
import os
import re

import pytest

from sandyard_daemon.gateway_client import (
    Execution,
    Exited,
    GatewayClosed,
    GatewaySocket,
    Pty,
)
from tests.contract.wire_client import Refused
from tests.daemon.conftest import Daemon, Starter, eventually
from tests.daemon.processes import is_alive
from tests.daemon.terminal.gateway import exec_, opened, result, until
from tests.daemon.terminal.screens import memory, tree


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
    assert re.search(rb"login_shell +\ton", out)  # in bash 5.3 the column is wider
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
    assert await asyncio.to_thread(daemon.process.wait, 60) == 0
    # The daemon waits for them, though not for ever: what is slow to end goes on ending behind it.
    await asyncio.to_thread(eventually, lambda: not [pid for pid in left if is_alive(pid)])


async def test_a_helper_that_holds_the_pipes_does_not_hold_the_end(start_daemon: Starter) -> None:
    daemon = start_daemon(constants={"sandyard_daemon.gateway.program.QUIET_SECONDS": 1})
    # The second helper runs already when the shell ends, and writes without a pause, which would be taken for its end.
    os.mkfifo(daemon.home / "gate")
    late = "set -- {1..5000}; echo on > gate; for i; do echo late; done"
    out, _, end = await exec_(daemon, f"sleep 1000 & echo on; ({late}) & read line < gate; exit 5")
    assert (out, end) == (b"on\n" + b"late\n" * 5000, Exited(5))


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


# Both.


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
