"""What the control plane knows of a sandbox's commands when the sandbox ends: all of it, before the job is done."""

import asyncio
from pathlib import Path

import pytest

from sandyard_api.jobs.wire import CommandRecord, JobKind
from sandyard_api.sandboxes.states import Observed
from sandyard_runner.runtime.memory import MemoryRuntime
from tests.runner.conftest import OpenRunner, RunningDaemon, eventually
from tests.runner.doubles import ScriptedControlPlane, a_job


class KillingRuntime(MemoryRuntime):
    """A memory runtime that ends the daemon of its sandbox as the real ones do: asked first, or at once."""

    victim: RunningDaemon | None = None

    async def stop(self, sandbox_id: str, *, force: bool = False, grace_seconds: float = 5.0) -> None:
        await super().stop(sandbox_id, force=force, grace_seconds=grace_seconds)
        await self._end(force=force)

    async def remove(self, sandbox_id: str) -> None:
        await super().remove(sandbox_id)
        await self._end(force=True)

    async def _end(self, *, force: bool) -> None:
        if self.victim is not None:
            process = self.victim.process
            process.kill() if force else process.terminate()
            await asyncio.to_thread(process.wait)


class SlowControlPlane(ScriptedControlPlane):
    """Takes records late: the events of a quick client's last command still wait in the daemon when it deletes."""

    async def record(self, *records: object) -> None:
        await asyncio.sleep(0.1)
        await super().record(*records)  # type: ignore[arg-type]


@pytest.fixture
def memory_runtime(tmp_path: Path, daemon: RunningDaemon) -> KillingRuntime:
    runtime = KillingRuntime(tmp_path / "doors")
    runtime.victim = daemon
    return runtime


@pytest.fixture
def control_plane() -> SlowControlPlane:
    return SlowControlPlane()


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end waits for moments only for what is to be told: a limit for daemons, not for a machine that stalls."""
    for name in ("DRAIN_SECONDS", "LAST_EVENTS_SECONDS"):
        monkeypatch.setattr(f"sandyard_runner.observe.{name}", 60.0)


def last_of(control_plane: ScriptedControlPlane, command_id: str) -> CommandRecord:
    return [record for record in control_plane.commands if record.command_id == command_id][-1]


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("kind", [JobKind.STOP, JobKind.DESTROY])
async def test_what_ended_just_before_is_told_with_its_own_exit_code(
    open_a_runner: OpenRunner, control_plane: SlowControlPlane, daemon: RunningDaemon, kind: JobKind
) -> None:
    async with open_a_runner():
        control_plane.give(job := a_job(JobKind.CREATE))
        await control_plane.result_of(job)
        commands = [await daemon.run(f"(exit {number})", session_id=f"s{number}") for number in range(40)]
        for number, command in enumerate(commands):  # each in a process of its own: the last may be quicker

            async def has_ended(path: str = f"/process/session/s{number}/command/{command}") -> bool:
                return "exitCode" in await daemon.get(path)

            await eventually(has_ended)
        control_plane.give(job := a_job(kind))
        assert (await control_plane.result_of(job)).ok
        told = [last_of(control_plane, command) for command in commands]
    assert [record.exit_code for record in told] == list(range(40))


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize(("kind", "code"), [(JobKind.STOP, 143), (JobKind.DESTROY, 137)])
async def test_what_runs_is_told_to_have_ended_with_the_sandbox(
    open_a_runner: OpenRunner, control_plane: SlowControlPlane, daemon: RunningDaemon, kind: JobKind, code: int
) -> None:
    async with open_a_runner():
        control_plane.give(job := a_job(JobKind.CREATE))
        await control_plane.result_of(job)
        command = await daemon.run("sleep 1000")
        control_plane.give(job := a_job(kind))
        assert (await control_plane.result_of(job)).ok
        record = last_of(control_plane, command)
        sessions = {item.session_id for item in control_plane.sessions if item.ended_at is not None}
    assert record.finished_at is not None
    assert record.exit_code == code
    assert sessions == {"entrypoint", "s"}


@pytest.mark.usefixtures("unhurried")
async def test_what_runs_ends_with_a_sandbox_that_dies(
    open_a_runner: OpenRunner, control_plane: SlowControlPlane, daemon: RunningDaemon, memory_runtime: KillingRuntime
) -> None:
    async with open_a_runner():
        control_plane.give(job := a_job(JobKind.CREATE))
        await control_plane.result_of(job)
        command = await daemon.run("sleep 1000")
        await control_plane.until(lambda: any(record.command_id == command for record in control_plane.commands))
        daemon.process.kill()
        memory_runtime.kill("sandbox-1")
        await control_plane.until(lambda: bool(control_plane.observations))
        record = last_of(control_plane, command)
    assert control_plane.observations[0].observed is Observed.STOPPED
    assert (record.exit_code, record.finished_at is not None) == (137, True)


async def test_a_daemon_that_does_not_answer_does_not_hold_up_the_end(
    open_a_runner: OpenRunner, control_plane: SlowControlPlane, daemon: RunningDaemon
) -> None:
    """As the wait for an answer would, which is a minute here."""
    async with open_a_runner():
        control_plane.give(job := a_job(JobKind.CREATE))
        await control_plane.result_of(job)
        daemon.process.send_signal(19)
        control_plane.give(job := a_job(JobKind.DESTROY))
        async with asyncio.timeout(30):
            assert (await control_plane.result_of(job)).ok
