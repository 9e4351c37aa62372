"""The job loop: results, leases, order, failures."""

import asyncio
import signal

import pytest

from sandyard.bus.memory import MemoryBus
from sandyard.clock import SystemClock
from sandyard_api.jobs.wire import JobKind, SandboxSpec
from sandyard_api.sandboxes.states import Observed
from sandyard_runner.app import Leave, RunnerOptions, open_runner
from sandyard_runner.errors import RuntimeFailure
from sandyard_runner.runtime.contract import PresentState
from sandyard_runner.runtime.memory import MemoryRuntime
from tests.runner.conftest import OpenRunner, RunningDaemon, eventually
from tests.runner.doubles import ScriptedControlPlane, a_job, a_spec, as_wanted


async def test_a_sandbox_goes_through_its_life(
    open_a_runner: OpenRunner, control_plane: ScriptedControlPlane, memory_runtime: MemoryRuntime
) -> None:
    async with open_a_runner():
        for kind, observed in (
            (JobKind.CREATE, Observed.STARTED),
            (JobKind.STOP, Observed.STOPPED),
            (JobKind.START, Observed.STARTED),
            (JobKind.DESTROY, Observed.DESTROYED),
        ):
            control_plane.give(job := a_job(kind))
            result = await control_plane.result_of(job)
            assert (result.ok, result.observed, result.lease) == (True, observed, job.lease)
    assert list(await memory_runtime.present()) == []


async def test_a_create_tells_each_step(open_a_runner: OpenRunner, control_plane: ScriptedControlPlane) -> None:
    async with open_a_runner():
        control_plane.give(job := a_job(JobKind.CREATE, a_spec(image="debian:12")))
        await control_plane.result_of(job)
    steps = [progress.observed for progress in control_plane.progressed]
    assert steps == [Observed.PULLING, Observed.CREATING, Observed.STARTING]
    assert control_plane.build_log == "image debian:12 is there\n"


async def test_the_daemons_version_comes_with_the_result(
    open_a_runner: OpenRunner, control_plane: ScriptedControlPlane, daemon: RunningDaemon
) -> None:
    async with open_a_runner():
        control_plane.give(job := a_job(JobKind.CREATE))
        assert (await control_plane.result_of(job)).daemon_version


async def test_user_code_begins_when_the_sandbox_was_started(
    open_a_runner: OpenRunner, control_plane: ScriptedControlPlane, daemon: RunningDaemon
) -> None:
    """The daemon waits for `/init`, which comes after the network's rules."""

    async def has_begun() -> bool:
        return "begun" in await daemon.get("/process/session/entrypoint/logs")

    assert not await has_begun()
    async with open_a_runner():
        control_plane.give(job := a_job(JobKind.CREATE))
        assert (await control_plane.result_of(job)).ok
        await eventually(has_begun)


async def test_a_daemon_that_is_slow_to_begin_is_waited_for(
    open_a_runner: OpenRunner,
    control_plane: ScriptedControlPlane,
    daemon: RunningDaemon,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A moment without processor time made a good sandbox an error for ever."""

    async def is_starting() -> bool:
        return Observed.STARTING in [progress.observed for progress in control_plane.progressed]

    monkeypatch.setattr("sandyard_runner.door_http.HEAD_TIMEOUT_SECONDS", 0.1)
    daemon.process.send_signal(signal.SIGSTOP)
    async with open_a_runner():
        control_plane.give(job := a_job(JobKind.CREATE))
        await eventually(is_starting)
        await asyncio.sleep(0.5)  # longer than other requests have
        daemon.process.send_signal(signal.SIGCONT)
        result = await control_plane.result_of(job)
    assert result.ok, result.reason


async def test_a_job_done_twice_ends_the_same(
    open_a_runner: OpenRunner, control_plane: ScriptedControlPlane, memory_runtime: MemoryRuntime
) -> None:
    async with open_a_runner():
        for kind in (JobKind.CREATE, JobKind.CREATE, JobKind.DESTROY, JobKind.DESTROY):
            control_plane.give(job := a_job(kind))
            assert (await control_plane.result_of(job)).ok
    assert list(await memory_runtime.present()) == []


async def test_an_image_that_cannot_be_had_fails_the_build_with_its_reason(
    open_a_runner: OpenRunner, control_plane: ScriptedControlPlane, memory_runtime: MemoryRuntime
) -> None:
    memory_runtime.fail_next("ensure_image", RuntimeFailure("no such image: nope", recoverable=True))
    async with open_a_runner():
        control_plane.give(job := a_job(JobKind.CREATE, a_spec(image="nope")))
        result = await control_plane.result_of(job)
    assert (result.ok, result.observed, result.reason) == (False, Observed.BUILD_FAILED, "no such image: nope")
    assert result.recoverable
    assert "no such image: nope" in control_plane.build_log


async def test_a_start_that_fails_is_an_error_with_its_reason(
    open_a_runner: OpenRunner, control_plane: ScriptedControlPlane
) -> None:
    async with open_a_runner():
        control_plane.give(job := a_job(JobKind.START, a_spec("never-made")))
        result = await control_plane.result_of(job)
    assert (result.ok, result.observed) == (False, Observed.ERROR)
    assert "never-made does not exist" in result.reason


class BrokenRuntime(MemoryRuntime):
    """Fails in a way nobody foresaw."""

    async def stop(self, sandbox_id: str, *, force: bool = False, grace_seconds: float = 5.0) -> None:
        raise ZeroDivisionError("surprise")


async def test_a_mistake_of_ours_fails_one_job_and_not_the_runner(
    control_plane: ScriptedControlPlane,
) -> None:
    options = RunnerOptions("runner-1", "unix:/nowhere", "token")
    async with open_runner(
        runtime=BrokenRuntime(), control_plane=control_plane, bus=MemoryBus(), clock=SystemClock(), options=options
    ):
        control_plane.give(broken := a_job(JobKind.STOP), after := a_job(JobKind.DESTROY, a_spec("other")))
        result = await control_plane.result_of(broken)
        assert (await control_plane.result_of(after)).ok
    assert (result.ok, result.observed) == (False, Observed.ERROR)
    assert "surprise" in result.reason


class SlowRuntime(MemoryRuntime):
    """Creating waits until it is allowed."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = asyncio.Event()
        self.allowed = asyncio.Event()
        self.cancelled = False

    async def create(self, spec: SandboxSpec) -> None:
        self.entered.set()
        try:
            await self.allowed.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        await super().create(spec)


async def test_a_lease_is_extended_while_the_work_goes_on_and_the_work_ends_when_it_is_void(
    control_plane: ScriptedControlPlane,
) -> None:
    runtime = SlowRuntime()
    options = RunnerOptions("runner-1", "unix:/nowhere", "token")
    async with open_runner(
        runtime=runtime, control_plane=control_plane, bus=MemoryBus(), clock=SystemClock(), options=options
    ):
        job = a_job(JobKind.CREATE, lease_seconds=0.15)
        control_plane.give(job)
        await runtime.entered.wait()
        await control_plane.until(lambda: sum(item.observed is None for item in control_plane.progressed) >= 2)
        control_plane.void.add(job.id)
        control_plane.give(destroy := a_job(JobKind.DESTROY))
        assert (await control_plane.result_of(destroy)).ok
    assert runtime.cancelled
    assert job.id not in control_plane.results


async def test_a_result_is_told_when_the_control_plane_is_back(
    open_a_runner: OpenRunner, control_plane: ScriptedControlPlane, memory_runtime: MemoryRuntime
) -> None:
    async with open_a_runner():
        control_plane.give(job := a_job(JobKind.CREATE))
        await control_plane.until(lambda: bool(control_plane.progressed))
        control_plane.away = True
        assert job.id not in control_plane.results
        control_plane.away = False
        assert (await control_plane.result_of(job)).ok


async def test_when_it_ends_a_runner_does_with_its_sandboxes_as_it_was_told(
    open_a_runner: OpenRunner, control_plane: ScriptedControlPlane, memory_runtime: MemoryRuntime
) -> None:
    spec = a_spec()
    for leave, expected in (
        (Leave.RUNNING, PresentState.RUNNING),
        (Leave.STOP, PresentState.STOPPED),
        (Leave.REMOVE, None),
    ):
        await memory_runtime.create(spec)
        await memory_runtime.start(spec)
        control_plane.wanted_sandboxes = [as_wanted(spec)]
        async with open_a_runner(leave=leave):
            await control_plane.until(lambda: bool(control_plane.heartbeats))
        states = [item.state for item in await memory_runtime.present()]
        assert states == ([] if expected is None else [expected])
    assert [item.observed for item in control_plane.observations] == [Observed.STOPPED, Observed.DESTROYED]
