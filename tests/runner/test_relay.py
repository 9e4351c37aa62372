"""The relay over real HTTP: leases, one tail whatever the number of followers, the end at once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandyard.bus.contract import Subscription
from sandyard.bus.memory import MemoryBus
from sandyard.serving import listen_unix, serve
from sandyard_api.jobs.wire import JobKind
from sandyard_daemon.wire import FrameDecoder, LogFrame, Stream
from sandyard_runner.client import HttpRunner
from sandyard_runner.door_http import ask_json
from sandyard_runner.errors import RunnerUnreachable
from sandyard_runner.relay import MAX_MESSAGE_BYTES, FrameCutter
from sandyard_runner.wire import RelayTick, log_channel
from tests.runner.conftest import TOKEN, OpenRunner, RunningDaemon, eventually
from tests.runner.doubles import ScriptedControlPlane, a_job


@pytest.fixture
async def client(
    open_a_runner: OpenRunner, control_plane: ScriptedControlPlane, daemon: RunningDaemon, tmp_path: Path
) -> AsyncIterator[HttpRunner]:
    """A client of a runner that has `sandbox-1` with a real daemon."""
    path = tmp_path / "runner.sock"
    async with (
        open_a_runner() as runner,
        serve(runner.app, listen_unix(path)),
        HttpRunner(f"unix:{path}", TOKEN, silence_seconds=120) as it,
    ):
        control_plane.give(job := a_job(JobKind.CREATE))
        await control_plane.result_of(job)
        yield it


async def frames_until_end(subscription: Subscription) -> list[LogFrame]:
    decoder = FrameDecoder()
    frames: list[LogFrame] = []
    async with asyncio.timeout(60):
        while not frames or frames[-1].stream is not Stream.END:
            message = await subscription.next()
            assert message is not None
            frames += decoder.feed(message.payload)
    return frames


async def test_what_a_command_writes_while_the_lease_is_held_goes_over_the_bus(
    client: HttpRunner, daemon: RunningDaemon, bus: MemoryBus
) -> None:
    command = await daemon.run("read go; echo out; echo err >&2; (exit 7)")
    async with bus.subscribe(log_channel("sandbox-1", command)) as subscription:
        ticks: list[RelayTick] = []
        async with contextlib.aclosing(client.relay("sandbox-1", "s", command)) as relay:
            async for tick in relay:
                if not ticks:
                    await daemon.post(f"/process/session/s/command/{command}/input", {"data": "go"})
                ticks.append(tick)
        frames = await frames_until_end(subscription)
    text = {
        stream: b"".join(f.payload for f in frames if f.stream is stream) for stream in (Stream.STDOUT, Stream.STDERR)
    }
    assert text[Stream.STDERR] == b"err\n"
    assert text[Stream.STDOUT].endswith(b"out\n")
    position = frames[0].offset
    for frame in frames[:-1]:
        assert frame.offset == position
        position += len(frame.payload)
    assert (ticks[-1].end, ticks[-1].exit_code, ticks[-1].lost) == (position, 7, None)
    assert all(tick.end is None for tick in ticks[:-1])


async def test_a_command_that_is_over_gives_one_tick_with_its_end(client: HttpRunner, daemon: RunningDaemon) -> None:
    command = await daemon.run("echo done")
    await is_over(daemon, command)
    ticks = [tick async for tick in client.relay("sandbox-1", "s", command)]
    assert ticks == [RelayTick(offset=5, end=5, exit_code=0)]


async def is_over(daemon: RunningDaemon, command: str) -> None:
    async def ended() -> bool:
        _, head = await ask_json(daemon.door, f"/_daemon/logs/s/{command}?head")
        return head.get("end") is not None

    await eventually(ended)


async def test_many_followers_share_one_tail_and_it_ends_with_the_last(
    client: HttpRunner, daemon: RunningDaemon
) -> None:
    command = await daemon.run("sleep 60")
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(20):
            relay = await stack.enter_async_context(contextlib.aclosing(client.relay("sandbox-1", "s", command)))
            assert (await anext(relay)).end is None
        assert await tails(client) == 1

    async def none_left() -> bool:
        return await tails(client) == 0

    await eventually(none_left)


async def tails(client: HttpRunner) -> int:
    session = client._open()
    async with session.get(client._url("/health"), headers=client._headers) as answer:
        return int((await answer.json())["tails"])


async def test_the_end_is_told_at_once(
    client: HttpRunner, daemon: RunningDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandyard_runner.relay.TICK_SECONDS", 3600)
    command = await daemon.run("read go")
    async with contextlib.aclosing(client.relay("sandbox-1", "s", command)) as relay:
        await anext(relay)
        await daemon.post(f"/process/session/s/command/{command}/input", {"data": "go"})
        async with asyncio.timeout(60):  # the next regular tick would come after an hour
            last = [tick async for tick in relay][-1]
    assert last.end is not None


async def test_an_unknown_command_or_sandbox_is_lost_at_once(client: HttpRunner) -> None:
    for sandbox_id, session_id in (("sandbox-1", "s"), ("no-such", "s"), ("..", "s"), ("sandbox-1", "a/b%2F..")):
        ticks = [tick async for tick in client.relay(sandbox_id, session_id, "nope")]
        assert len(ticks) == 1
        assert ticks[0].lost


async def test_a_follower_is_told_when_the_session_is_deleted(client: HttpRunner, daemon: RunningDaemon) -> None:
    command = await daemon.run("sleep 60")
    async with contextlib.aclosing(client.relay("sandbox-1", "s", command)) as relay:
        await anext(relay)
        connection = await client.connect_door("sandbox-1")
        loop = asyncio.get_running_loop()
        with connection:
            request = f"DELETE /process/session/s HTTP/1.1\r\nHost: d\r\nX-Sandyard-Door: {daemon.door.secret}\r\n\r\n"
            await loop.sock_sendall(connection, request.encode())
            last = [tick async for tick in relay][-1]
    assert last.lost is not None or last.end is not None


async def test_a_tunnel_carries_http_to_the_door(client: HttpRunner, daemon: RunningDaemon) -> None:
    connection = await client.connect_door("sandbox-1")
    reader, writer = await asyncio.open_connection(sock=connection)
    head = f"GET /_daemon/health HTTP/1.1\r\nHost: d\r\nX-Sandyard-Door: {daemon.door.secret}\r\nConnection: close"
    writer.write(f"{head}\r\n\r\n".encode())
    async with asyncio.timeout(60):
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 200")
    writer.close()
    await writer.wait_closed()


async def test_without_the_token_nothing_is_served(client: HttpRunner, daemon: RunningDaemon, tmp_path: Path) -> None:
    async with HttpRunner(f"unix:{tmp_path / 'runner.sock'}", "wrong") as stranger:
        with pytest.raises(RunnerUnreachable):
            await anext(stranger.relay("sandbox-1", "s", "c"))
        with pytest.raises(RunnerUnreachable):
            await stranger.connect_door("sandbox-1")


def test_the_cutter_keeps_frames_whole_and_messages_bounded() -> None:
    frames = []
    offset = 0
    for number in range(40):
        payload = bytes([number]) * (number * 2000 + 1)
        frames.append(LogFrame(offset, Stream.STDERR if number % 3 else Stream.STDOUT, payload))
        offset += len(payload)
    frames.append(LogFrame(offset, Stream.END, (5).to_bytes(8, "big")))
    raw = b"".join(frame.encode() for frame in frames)
    for size in (1, 13, 4096, 300_000, len(raw)):
        cutter = FrameCutter()
        messages = [m for start in range(0, len(raw), size) for m in cutter.feed(raw[start : start + size])]
        assert [frame for message in messages for frame in FrameDecoder().feed(message)] == frames
        assert max(len(message) for message in messages) <= MAX_MESSAGE_BYTES + 80_100
        assert (cutter.offset, cutter.end, cutter.exit_code) == (offset, offset, 5)
