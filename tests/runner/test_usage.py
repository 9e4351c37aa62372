"""Samples of what sandboxes use: of a real daemon, over the runner's API, and how many are kept."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandyard.clock import ManualClock
from sandyard.serving import listen_unix, serve
from sandyard_api.jobs.wire import JobKind
from sandyard_runner.client import HttpRunner
from sandyard_runner.registry import Registry
from sandyard_runner.runtime.memory import MemoryRuntime
from sandyard_runner.usage import KEPT_SAMPLES, LOOK_SECONDS, PERIOD_SECONDS, Usage
from tests.runner.conftest import TOKEN, OpenRunner, RunningDaemon
from tests.runner.doubles import ScriptedControlPlane, a_job

TOLD = (
    b'{"cpuCount": 2, "cpuUsedPct": 50.5, "memTotal": 8, "memUsed": 4, "memCache": 1, "diskTotal": 16, "diskUsed": 9}'
)


async def test_a_sample_of_a_running_sandbox_comes_over_the_runners_api(
    open_a_runner: OpenRunner, control_plane: ScriptedControlPlane, daemon: RunningDaemon, tmp_path: Path
) -> None:
    path = tmp_path / "runner.sock"
    async with open_a_runner() as runner, serve(runner.app, listen_unix(path)), HttpRunner(f"unix:{path}", TOKEN) as it:
        control_plane.give(job := a_job(JobKind.CREATE))
        await control_plane.result_of(job)
        async with asyncio.timeout(60):
            while not (samples := await it.usage("sandbox-1")):  # noqa: ASYNC110  the daemon is real
                await asyncio.sleep(0.1)
        (sample,) = samples
        assert await it.usage("another/one") == []
    assert 0 < sample.memory <= sample.memory_limit
    assert 0 < sample.disk <= sample.disk_limit
    assert sample.cpu_limit >= 1


class Doors:
    """A registry with one sandbox, whose daemon says what it is told to say."""

    def __init__(self, folder: Path) -> None:
        self.registry = Registry(MemoryRuntime(folder))
        self.registry.add("s", "secret")
        self.body = TOLD
        self.asked = itertools.count()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        next(self.asked)
        if self.body:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(self.body), self.body))
            await writer.drain()
        else:
            await reader.read()
        writer.close()


@pytest.fixture
async def doors(tmp_path: Path) -> AsyncIterator[Doors]:
    made = Doors(tmp_path)
    (tmp_path / "s").mkdir()
    async with await asyncio.start_unix_server(made.answer, tmp_path / "s" / "door.sock"):
        yield made


async def test_there_is_a_sample_a_minute_and_the_first_at_once(doors: Doors) -> None:
    clock = ManualClock()
    kept = Usage(doors.registry, clock)
    moments = []
    for _ in range(int(2.5 * PERIOD_SECONDS / LOOK_SECONDS)):
        await clock.advance(LOOK_SECONDS)
        await kept.look()
        moments.append(len(kept.of("s")))
    assert (moments[0], moments[11], moments[12], moments[-1]) == (1, 1, 2, 3)
    sample = kept.of("s")[0]
    assert (sample.cpu_percent, sample.cpu_limit, sample.disk_limit) == (50.5, 2, 16)


async def test_half_a_day_is_kept_and_of_what_is_gone_nothing_after_it(doors: Doors) -> None:
    clock = ManualClock()
    kept = Usage(doors.registry, clock)
    for _ in range(KEPT_SAMPLES + 5):
        await clock.advance(PERIOD_SECONDS)
        await kept.look()
    doors.registry.discard("s")
    assert len(kept.of("s")) == KEPT_SAMPLES
    await clock.advance((KEPT_SAMPLES + 1) * PERIOD_SECONDS)
    await kept.look()
    assert kept.of("s") == []


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"nonsense", b'{"cpuCount": "many"}'])
async def test_a_daemon_that_says_nothing_of_use_has_no_sample(
    doors: Doors, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    doors.body = body
    if not body:  # it is not waited for; the others are, until they said it
        monkeypatch.setattr("sandyard_runner.usage.ANSWER_SECONDS", 2.0)
    kept = Usage(doors.registry, ManualClock())
    await kept.look()
    assert kept.of("s") == []
    assert next(doors.asked) == 1
