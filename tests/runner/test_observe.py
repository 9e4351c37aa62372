"""Deaths and session events on their way to the control plane: nothing lost while it is away."""

import base64

from sandyard_api.jobs.wire import JobKind
from sandyard_api.sandboxes.states import Observed
from sandyard_runner.runtime.memory import MemoryRuntime
from tests.runner.conftest import OpenRunner, RunningDaemon
from tests.runner.doubles import ScriptedControlPlane, a_job


async def test_a_death_reaches_the_control_plane_with_its_reason(
    open_a_runner: OpenRunner, control_plane: ScriptedControlPlane, memory_runtime: MemoryRuntime
) -> None:
    async with open_a_runner():
        control_plane.give(job := a_job(JobKind.CREATE))
        await control_plane.result_of(job)
        memory_runtime.kill("sandbox-1", reason="killed: out of memory")
        await control_plane.until(lambda: bool(control_plane.observations))
    assert control_plane.observations[0].observed is Observed.STOPPED
    assert control_plane.observations[0].reason == "killed: out of memory"


async def test_a_removal_behind_our_back_is_an_error(
    open_a_runner: OpenRunner, control_plane: ScriptedControlPlane, memory_runtime: MemoryRuntime
) -> None:
    async with open_a_runner():
        control_plane.give(job := a_job(JobKind.CREATE))
        await control_plane.result_of(job)
        memory_runtime.vanish("sandbox-1")
        await control_plane.until(lambda: bool(control_plane.observations))
    assert control_plane.observations[0].observed is Observed.ERROR


async def test_deaths_while_the_control_plane_is_away_are_told_in_order_afterwards(
    open_a_runner: OpenRunner, control_plane: ScriptedControlPlane, memory_runtime: MemoryRuntime
) -> None:
    async with open_a_runner():
        control_plane.give(job := a_job(JobKind.CREATE))
        await control_plane.result_of(job)
        control_plane.away = True
        memory_runtime.kill("sandbox-1", reason="first")
        memory_runtime.kill("sandbox-1", reason="second")
        control_plane.away = False
        await control_plane.until(lambda: len(control_plane.observations) == 2)
    assert [item.reason for item in control_plane.observations] == ["first", "second"]


async def test_a_command_reaches_the_control_plane_when_it_starts_and_when_it_ends(
    open_a_runner: OpenRunner, control_plane: ScriptedControlPlane, daemon: RunningDaemon
) -> None:
    async with open_a_runner():
        control_plane.give(job := a_job(JobKind.CREATE))
        await control_plane.result_of(job)
        command_id = await daemon.run("echo hello; (exit 3)")
        await control_plane.until(lambda: any(record.finished_at for record in control_plane.commands))
    # Not the last of all: that may be the entrypoint's, which began at the same time.
    record = [record for record in control_plane.commands if record.finished_at][-1]
    assert (record.command_id, record.session_id, record.exit_code) == (command_id, "s", 3)
    assert record.log_size == 6
    assert base64.b64decode(record.last_lines) == b"hello\n"
    assert record.finished_at is not None
    assert record.created_at <= record.finished_at
    assert any(session.session_id == "s" for session in control_plane.sessions)


async def test_commands_that_end_while_the_control_plane_is_away_are_told_afterwards(
    open_a_runner: OpenRunner, control_plane: ScriptedControlPlane, daemon: RunningDaemon
) -> None:
    async with open_a_runner():
        control_plane.give(job := a_job(JobKind.CREATE))
        await control_plane.result_of(job)
        control_plane.away = True
        commands = [await daemon.run(f"(exit {number})") for number in range(5)]
        control_plane.away = False
        await control_plane.until(
            lambda: {record.command_id for record in control_plane.commands if record.finished_at} == set(commands)
        )
    ended = {record.command_id: record.exit_code for record in control_plane.commands if record.finished_at}
    assert [ended[command] for command in commands] == [0, 1, 2, 3, 4]


async def test_events_before_the_runner_came_are_told_by_the_next_runner(
    open_a_runner: OpenRunner, control_plane: ScriptedControlPlane, daemon: RunningDaemon
) -> None:
    command_id = await daemon.run("true")
    async with open_a_runner():
        control_plane.give(job := a_job(JobKind.CREATE))
        await control_plane.result_of(job)
        await control_plane.until(lambda: any(record.finished_at for record in control_plane.commands))
    (ended,) = [record.command_id for record in control_plane.commands if record.finished_at]
    assert ended == command_id
