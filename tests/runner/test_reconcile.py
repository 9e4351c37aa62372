"""Wanted against present: what the runner repairs by itself, and what it leaves alone."""

import asyncio
from collections.abc import Sequence

import pytest

from sandyard_api.jobs.wire import ClaimRequest, ImageJob, Job, Observation, Wanted
from sandyard_api.sandboxes.states import Desired, Observed
from sandyard_runner.runtime.contract import PresentState
from sandyard_runner.runtime.memory import MemoryRuntime
from tests.runner.conftest import OpenRunner
from tests.runner.doubles import ScriptedControlPlane, a_spec, as_wanted


async def reconciled(open_a_runner: OpenRunner, control_plane: ScriptedControlPlane, *wanted: Wanted) -> None:
    """Run a runner through one comparison."""
    control_plane.wanted_sandboxes = [*wanted]
    async with open_a_runner(reconcile_seconds=0.01):
        await control_plane.until(lambda: len(control_plane.heartbeats) > 0)
        marker = as_wanted(a_spec("marker"), observed=Observed.STOPPED)
        control_plane.wanted_sandboxes.append(marker)
        await control_plane.until(lambda: any(item.sandbox_id == "marker" for item in control_plane.observations))


def told(control_plane: ScriptedControlPlane) -> dict[str, Observed]:
    return {item.sandbox_id: item.observed for item in control_plane.observations if item.sandbox_id != "marker"}


async def test_a_sandbox_without_a_row_is_removed(
    open_a_runner: OpenRunner, control_plane: ScriptedControlPlane, memory_runtime: MemoryRuntime
) -> None:
    await memory_runtime.create(a_spec("orphan"))
    await reconciled(open_a_runner, control_plane)
    assert list(await memory_runtime.present()) == []


@pytest.mark.parametrize(
    ("observed", "desired", "expected"),
    [
        (Observed.STARTED, Desired.STARTED, Observed.ERROR),
        (Observed.STOPPED, Desired.STOPPED, Observed.ERROR),
        (Observed.STARTED, Desired.DESTROYED, Observed.DESTROYED),
        (Observed.PENDING, Desired.STARTED, None),
        (Observed.CREATING, Desired.STARTED, None),
    ],
)
async def test_a_row_without_a_sandbox_is_told(
    open_a_runner: OpenRunner,
    control_plane: ScriptedControlPlane,
    observed: Observed,
    desired: Desired,
    expected: Observed | None,
) -> None:
    await reconciled(open_a_runner, control_plane, as_wanted(a_spec(), observed=observed, desired=desired))
    assert told(control_plane).get("sandbox-1") is expected


async def test_what_the_first_comparison_found_is_told_before_the_first_job_is_asked_for(
    open_a_runner: OpenRunner, control_plane: ScriptedControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    known_at_claim: list[int] = []
    claimed = asyncio.Event()
    observe, claim = control_plane.observe, control_plane.claim

    async def slowly(observations: Sequence[Observation]) -> None:
        await asyncio.sleep(0.05)
        await observe(observations)

    async def noting(request: ClaimRequest) -> Sequence[Job | ImageJob]:
        known_at_claim.append(len(control_plane.observations))
        claimed.set()
        return await claim(request)

    monkeypatch.setattr(control_plane, "observe", slowly)
    monkeypatch.setattr(control_plane, "claim", noting)
    lost = [as_wanted(a_spec(f"lost-{number}"), observed=Observed.STARTED) for number in range(3)]
    control_plane.wanted_sandboxes = [*lost]
    async with open_a_runner():
        async with asyncio.timeout(30):
            await claimed.wait()
    assert known_at_claim[0] == 3, "whoever finds the runner at work finds what became of each sandbox"
    assert len(control_plane.observations) == 3, "each once"


async def test_what_a_job_is_open_for_is_left_alone(
    open_a_runner: OpenRunner, control_plane: ScriptedControlPlane, memory_runtime: MemoryRuntime
) -> None:
    await reconciled(open_a_runner, control_plane, as_wanted(a_spec(), has_job=True))
    assert told(control_plane) == {}


async def test_a_sandbox_that_ended_while_nobody_watched_is_told_as_stopped_with_its_reason(
    open_a_runner: OpenRunner, control_plane: ScriptedControlPlane, memory_runtime: MemoryRuntime
) -> None:
    await memory_runtime.create(a_spec())
    await memory_runtime.start(a_spec())
    memory_runtime.kill("sandbox-1", reason="killed: out of memory")
    await reconciled(open_a_runner, control_plane, as_wanted(a_spec()))
    observation = next(item for item in control_plane.observations if item.sandbox_id == "sandbox-1")
    assert (observation.observed, observation.reason) == (Observed.STOPPED, "killed: out of memory")


async def test_a_sandbox_that_should_be_stopped_is_stopped(
    open_a_runner: OpenRunner, control_plane: ScriptedControlPlane, memory_runtime: MemoryRuntime
) -> None:
    await memory_runtime.create(a_spec())
    await memory_runtime.start(a_spec())
    stopped = as_wanted(a_spec(), desired=Desired.STOPPED, observed=Observed.STOPPED)
    await reconciled(open_a_runner, control_plane, stopped)
    assert [item.state for item in await memory_runtime.present()] == [PresentState.STOPPED]


async def test_a_deletion_nobody_works_on_is_done(
    open_a_runner: OpenRunner, control_plane: ScriptedControlPlane, memory_runtime: MemoryRuntime
) -> None:
    await memory_runtime.create(a_spec())
    await reconciled(open_a_runner, control_plane, as_wanted(a_spec(), desired=Desired.DESTROYED))
    assert list(await memory_runtime.present()) == []
    assert told(control_plane) == {"sandbox-1": Observed.DESTROYED}
