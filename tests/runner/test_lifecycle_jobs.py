"""Jobs beyond create, start, stop and destroy: what they do to the runtime, repeated and when something fails."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from sandyard.clock import ManualClock
from sandyard_api.jobs.wire import Job, JobKind, JobResult, Resources, SandboxSpec, Wanted
from sandyard_api.sandboxes.states import Desired, Observed
from sandyard_runner.actions import Actions
from sandyard_runner.errors import RuntimeFailure
from sandyard_runner.image_work import ImageWork
from sandyard_runner.observations import Observations
from sandyard_runner.observe import Observer
from sandyard_runner.registry import Registry
from sandyard_runner.runtime.contract import PresentState
from sandyard_runner.runtime.memory import MemoryRuntime
from tests.runner.conftest import OpenRunner
from tests.runner.doubles import ScriptedControlPlane, a_job, a_spec, as_wanted
from tests.runner.test_reconcile import reconciled, told

IMAGE = "sandyard/archive:sandbox-1"


def actions(runtime: Any, control_plane: ScriptedControlPlane) -> Actions:
    clock = ManualClock()
    registry, observations = Registry(runtime), Observations(control_plane, clock)
    observer = Observer(
        runtime=runtime, control_plane=control_plane, registry=registry, observations=observations, clock=clock
    )
    return Actions(runtime, control_plane, registry, observer, ImageWork(runtime, control_plane))


async def do(
    runtime: Any, control_plane: ScriptedControlPlane, kind: JobKind, spec: SandboxSpec | None = None, **changes: Any
) -> JobResult:
    job: Job = msgspec.structs.replace(a_job(kind, spec), **changes)
    return await actions(runtime, control_plane).act(job)


async def states(runtime: MemoryRuntime) -> dict[str, PresentState]:
    return {item.sandbox_id: item.state for item in await runtime.present()}


@pytest.fixture
async def running(memory_runtime: MemoryRuntime) -> MemoryRuntime:
    """With one running sandbox."""
    await memory_runtime.create(a_spec())
    await memory_runtime.start(a_spec())
    return memory_runtime


@pytest.fixture
async def stopped(running: MemoryRuntime) -> MemoryRuntime:
    """With one stopped sandbox."""
    await running.stop("sandbox-1")
    return running


async def test_archiving_keeps_an_image_and_nothing_else(
    stopped: MemoryRuntime, control_plane: ScriptedControlPlane
) -> None:
    result = await do(stopped, control_plane, JobKind.ARCHIVE, image=IMAGE)
    assert (result.ok, result.observed) == (True, Observed.ARCHIVED)
    assert (await states(stopped), stopped.images) == ({}, {IMAGE})
    again = await do(stopped, control_plane, JobKind.ARCHIVE, image=IMAGE)
    assert (again.ok, again.observed) == (True, Observed.ARCHIVED)


@pytest.mark.parametrize("method", ["commit", "remove"])
async def test_an_archiving_that_fails_leaves_the_sandbox_stopped(
    stopped: MemoryRuntime, control_plane: ScriptedControlPlane, method: str
) -> None:
    stopped.fail_next(method, RuntimeFailure("no space left"))
    result = await do(stopped, control_plane, JobKind.ARCHIVE, image=IMAGE)
    assert (result.ok, result.observed, result.reason) == (False, Observed.STOPPED, "no space left")
    assert await states(stopped) == {"sandbox-1": PresentState.STOPPED}
    assert (await do(stopped, control_plane, JobKind.ARCHIVE, image=IMAGE)).ok


async def test_restoring_makes_the_sandbox_from_its_image_unless_it_is_there(
    stopped: MemoryRuntime, control_plane: ScriptedControlPlane
) -> None:
    await do(stopped, control_plane, JobKind.ARCHIVE, image=IMAGE)
    result = await do(stopped, control_plane, JobKind.RESTORE, image=IMAGE)
    assert (result.ok, result.observed) == (True, Observed.STARTED)
    assert Observed.RESTORING in [progress.observed for progress in control_plane.progressed]
    stopped.images.clear()
    assert (await do(stopped, control_plane, JobKind.RESTORE, image=IMAGE)).ok


async def test_restoring_without_an_image_says_so(
    memory_runtime: MemoryRuntime, control_plane: ScriptedControlPlane
) -> None:
    result = await do(memory_runtime, control_plane, JobKind.RESTORE, image=IMAGE)
    assert (result.ok, result.observed) == (False, Observed.ERROR)
    assert result.reason.startswith("No valid backup snapshot found")
    assert await states(memory_runtime) == {}


async def test_a_fork_begins_with_an_image_of_its_parent_and_takes_it_along(
    running: MemoryRuntime, control_plane: ScriptedControlPlane
) -> None:
    image = "sandyard/fork:fork"
    spec = msgspec.structs.replace(a_spec("fork", image=image), owned_images=("sandyard/archive:fork", image))
    result = await do(running, control_plane, JobKind.FORK, spec, source_id="sandbox-1")
    assert (result.ok, result.observed) == (True, Observed.STARTED)
    assert ("commit", "sandbox-1") in running.calls
    assert await states(running) == {"sandbox-1": PresentState.RUNNING, "fork": PresentState.RUNNING}
    await do(running, control_plane, JobKind.DESTROY, spec)
    assert (await states(running), running.images) == ({"sandbox-1": PresentState.RUNNING}, set())


async def test_a_fork_of_what_is_gone_is_an_error_and_makes_nothing(
    memory_runtime: MemoryRuntime, control_plane: ScriptedControlPlane
) -> None:
    result = await do(
        memory_runtime, control_plane, JobKind.FORK, a_spec("fork", image="sandyard/fork:fork"), source_id="gone"
    )
    assert (result.ok, result.observed) == (False, Observed.ERROR)
    assert (await states(memory_runtime), memory_runtime.images) == ({}, set())


async def test_a_pause_that_fails_leaves_it_running(
    running: MemoryRuntime, control_plane: ScriptedControlPlane
) -> None:
    running.fail_next("pause", RuntimeFailure("no freezer"))
    result = await do(running, control_plane, JobKind.PAUSE)
    assert (result.ok, result.observed, result.reason) == (False, Observed.STARTED, "no freezer")


async def test_a_pause_of_one_that_died_tells_of_what(
    running: MemoryRuntime, control_plane: ScriptedControlPlane
) -> None:
    running.kill("sandbox-1", reason="killed: out of memory")
    for kind in (JobKind.PAUSE, JobKind.RESUME):
        result = await do(running, control_plane, kind)
        assert (result.ok, result.observed, result.reason) == (False, Observed.STOPPED, "killed: out of memory")


@pytest.mark.parametrize(("kind", "seen"), [(JobKind.RESIZE, Observed.STOPPED), (JobKind.COMMIT, Observed.STOPPED)])
async def test_what_leaves_a_sandbox_where_it_was_ends_where_it_was(
    stopped: MemoryRuntime, control_plane: ScriptedControlPlane, kind: JobKind, seen: Observed
) -> None:
    result = await do(stopped, control_plane, kind, image="kept:1", resources=Resources(2, 2, 3))
    assert (result.ok, result.observed) == (True, seen)
    await stopped.start(a_spec())
    result = await do(stopped, control_plane, kind, image="kept:1", resources=Resources(2, 2, 3))
    assert (result.ok, result.observed) == (True, Observed.STARTED)


async def test_a_resize_of_what_is_gone_is_an_error(
    memory_runtime: MemoryRuntime, control_plane: ScriptedControlPlane
) -> None:
    result = await do(memory_runtime, control_plane, JobKind.RESIZE, resources=Resources(2, 2, 3))
    assert (result.ok, result.observed) == (False, Observed.ERROR)


async def test_recovering_makes_what_is_missing(
    memory_runtime: MemoryRuntime, control_plane: ScriptedControlPlane
) -> None:
    result = await do(memory_runtime, control_plane, JobKind.RECOVER)
    assert (result.ok, result.observed) == (True, Observed.STARTED)
    still = await do(memory_runtime, control_plane, JobKind.RECOVER, stay_stopped=True)
    assert (still.ok, still.observed) == (True, Observed.STOPPED)
    assert await states(memory_runtime) == {"sandbox-1": PresentState.STOPPED}


class Bare:
    """A runtime that can do nothing beside `Runtime`."""

    name = "bare"

    def __init__(self) -> None:
        self._spec: SandboxSpec | None = None

    async def present(self) -> Sequence[object]:
        return []


@pytest.mark.parametrize("kind", [JobKind.PAUSE, JobKind.RESUME, JobKind.RESIZE, JobKind.COMMIT, JobKind.ARCHIVE])
async def test_a_runtime_that_cannot_says_so(control_plane: ScriptedControlPlane, kind: JobKind) -> None:
    result = await do(Bare(), control_plane, kind, image="x:y", resources=Resources(1, 1, 1))
    assert not result.ok
    assert result.reason.startswith("the bare runtime cannot ")


async def test_the_silence_of_a_paused_daemon_is_no_death(
    running: MemoryRuntime, control_plane: ScriptedControlPlane
) -> None:
    clock = ManualClock()
    registry, observations = Registry(running), Observations(control_plane, clock)
    observer = Observer(
        runtime=running, control_plane=control_plane, registry=registry, observations=observations, clock=clock
    )
    registry.add("sandbox-1", "s" * 32)  # nothing answers at this door, as nothing does while it is paused

    async def pass_seconds(seconds: int) -> None:
        for _ in range(seconds * 5):
            await clock.advance(0.2)

    observer.watch("sandbox-1")
    async with observer.holding("sandbox-1"):
        pass
    await pass_seconds(60)
    assert await states(running) == {"sandbox-1": PresentState.RUNNING}
    observer.release("sandbox-1")
    await pass_seconds(20)
    assert await states(running) == {"sandbox-1": PresentState.STOPPED}
    await observer.close()


@pytest.mark.parametrize(
    ("present", "observed", "desired", "expected"),
    [
        (PresentState.PAUSED, Observed.STARTED, Desired.STARTED, Observed.PAUSED),
        (PresentState.PAUSED, Observed.PAUSED, Desired.PAUSED, None),
        (PresentState.RUNNING, Observed.PAUSED, Desired.PAUSED, Observed.STARTED),
        (PresentState.STOPPED, Observed.PAUSED, Desired.PAUSED, Observed.STOPPED),
        (PresentState.STOPPED, Observed.RESIZING, Desired.STARTED, Observed.STOPPED),
        (None, Observed.PAUSED, Desired.PAUSED, Observed.ERROR),
        (None, Observed.ARCHIVED, Desired.ARCHIVED, None),
    ],
)
async def test_what_is_found_of_a_paused_sandbox_is_told(
    open_a_runner: OpenRunner,
    control_plane: ScriptedControlPlane,
    running: MemoryRuntime,
    present: PresentState | None,
    observed: Observed,
    desired: Desired,
    expected: Observed | None,
) -> None:
    if present is PresentState.PAUSED:
        await running.pause("sandbox-1")
    elif present is PresentState.STOPPED:
        await running.stop("sandbox-1")
    elif present is None:
        await running.remove("sandbox-1")
    wanted: Wanted = as_wanted(a_spec(), observed=observed, desired=desired)
    await reconciled(open_a_runner, control_plane, wanted)
    assert told(control_plane).get("sandbox-1") is expected


async def test_what_is_left_of_an_archived_sandbox_is_removed(
    open_a_runner: OpenRunner, control_plane: ScriptedControlPlane, stopped: MemoryRuntime
) -> None:
    wanted = as_wanted(a_spec(), observed=Observed.ARCHIVED, desired=Desired.ARCHIVED)
    await reconciled(open_a_runner, control_plane, wanted)
    assert await states(stopped) == {}
