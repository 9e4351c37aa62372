"""What happens because time passes, with a clock that stands still in between."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from sandyard.clock import ManualClock
from sandyard_api.jobs.wire import JobKind, JobResult
from sandyard_api.sandboxes.models import Sandbox
from sandyard_api.sandboxes.states import Desired, Observed
from tests.api.conftest import World, open_world
from tests.api.doubles import badly, well

FOREVER = 10**9


class Timed:
    """A world whose clock moves only by hand, and whose timers look only when told."""

    def __init__(self, world: World, clock: ManualClock) -> None:
        self.world = world
        self.clock = clock

    async def create(self, **body: Any) -> str:
        """The id of a started sandbox."""
        sandbox_id = await self.begin(**body)
        await self.world.runner.work_once()
        return sandbox_id

    async def begin(self, **body: Any) -> str:
        """The id of a sandbox that no runner has seen."""
        await self.world.runner.beat()
        body.setdefault("buildInfo", {"dockerfileContent": "FROM x"})
        made = await self.world.client.call("POST", "/sandbox", body)
        assert made.status == 200
        return str(made.json["id"])

    async def pass_minutes(self, minutes: float) -> None:
        """Let time pass and look once."""
        await self.clock.advance(minutes * 60)
        await self.world.plane.timers.look()

    async def state(self, sandbox_id: str) -> tuple[str, str]:
        """Shown state and the last cause."""
        read = await self.world.client.call("GET", f"/_sandyard/sandboxes/{sandbox_id}")
        return read.json["sandbox"]["state"], read.json["history"][-1]["cause"]


@pytest.fixture
async def timed(database_url: str) -> AsyncIterator[Timed]:
    clock = ManualClock()
    async with open_world(database_url, clock=clock, timer_seconds=FOREVER) as world:
        yield Timed(world, clock)


async def test_an_idle_sandbox_is_stopped_and_says_why(timed: Timed) -> None:
    sandbox_id = await timed.create(autoStopInterval=15)
    await timed.pass_minutes(14)
    assert (await timed.state(sandbox_id))[0] == "started"
    await timed.pass_minutes(1)
    assert await timed.state(sandbox_id) == ("stopping", "auto-stop after 15 min idle")
    await timed.world.runner.work_once()
    assert (await timed.state(sandbox_id))[0] == "stopped"


async def test_use_puts_auto_stop_off_and_zero_turns_it_off(timed: Timed) -> None:
    used, never = await timed.create(autoStopInterval=15), await timed.create(autoStopInterval=0)
    await timed.pass_minutes(10)
    await timed.world.internal.touch({used: timed.clock.now()})
    await timed.pass_minutes(10)
    assert (await timed.state(used))[0] == "started"
    await timed.pass_minutes(6)
    assert (await timed.state(used))[0] == "stopping"
    await timed.pass_minutes(10_000)
    assert (await timed.state(never))[0] == "started"


async def test_an_idle_ephemeral_sandbox_is_deleted(timed: Timed) -> None:
    sandbox_id = await timed.create(autoStopInterval=1, autoDeleteInterval=0)
    await timed.pass_minutes(1)
    assert (await timed.state(sandbox_id))[0] == "destroying"


async def test_a_stopped_sandbox_is_deleted_when_its_time_is_over(timed: Timed) -> None:
    sandbox_id = await timed.create(autoStopInterval=1, autoDeleteInterval=60)
    await timed.pass_minutes(1)
    await timed.world.runner.work_once()
    await timed.pass_minutes(59)
    assert (await timed.state(sandbox_id))[0] == "stopped"
    await timed.pass_minutes(1)
    assert await timed.state(sandbox_id) == ("destroying", "auto-delete after 60 min stopped")


async def test_an_idle_sandbox_is_paused_and_says_why(timed: Timed) -> None:
    sandbox_id = await timed.create(autoPauseInterval=15)
    await timed.pass_minutes(14)
    assert (await timed.state(sandbox_id))[0] == "started"
    await timed.pass_minutes(1)
    assert await timed.state(sandbox_id) == ("pausing", "auto-pause after 15 min idle")
    await timed.world.runner.work_once()
    await timed.pass_minutes(10_000)
    assert (await timed.state(sandbox_id))[0] == "paused"


async def test_a_stopped_sandbox_is_archived_and_an_archived_one_deleted_when_its_time_is_over(timed: Timed) -> None:
    sandbox_id = await timed.create(autoStopInterval=1, autoArchiveInterval=60, autoDeleteInterval=90)
    await timed.pass_minutes(1)
    await timed.world.runner.work_once()
    await timed.pass_minutes(59)
    assert (await timed.state(sandbox_id))[0] == "stopped"
    await timed.pass_minutes(1)
    assert await timed.state(sandbox_id) == ("archiving", "auto-archive after 60 min stopped")
    await timed.world.runner.work_once()
    await timed.pass_minutes(89)
    assert (await timed.state(sandbox_id))[0] == "archived"
    await timed.pass_minutes(1)
    assert (await timed.state(sandbox_id))[0] == "destroying"


async def test_a_time_to_live_ends_a_paused_sandbox_and_one_that_has_forks(timed: Timed) -> None:
    sandbox_id = await timed.create(ttlMinutes=5)
    fork = await timed.world.client.call("POST", f"/sandbox/{sandbox_id}/fork", {})
    await timed.world.runner.work_once()
    await timed.world.client.call("POST", f"/sandbox/{fork.json['id']}/ttl/0")
    await timed.world.client.call("POST", f"/sandbox/{sandbox_id}/pause")
    await timed.world.runner.work_once()
    await timed.pass_minutes(5)
    assert await timed.state(sandbox_id) == ("destroying", "its time to live is over")
    assert (await timed.state(fork.json["id"]))[0] == "started"


async def test_a_start_that_no_runner_takes_becomes_an_error_and_a_pause_is_given_up(timed: Timed) -> None:
    paused, started = await timed.create(autoStopInterval=0), await timed.create(autoStopInterval=0)
    await timed.world.client.call("POST", f"/sandbox/{paused}/pause")
    async with timed.world.plane.database.transaction() as db:
        row = await db.get_one(Sandbox, started)
        row.observed, row.desired = Observed.STOPPED, Desired.STARTED
    await timed.pass_minutes(16)
    assert await timed.state(paused) == ("started", "Timeout while pausing")
    assert await timed.state(started) == ("error", "Timeout while starting")
    read = await timed.world.client.call("GET", f"/sandbox/{started}")
    assert read.json["recoverable"] is True


async def test_a_time_to_live_ends_even_a_busy_sandbox(timed: Timed) -> None:
    sandbox_id = await timed.create(ttlMinutes=5)
    await timed.pass_minutes(4)
    await timed.world.internal.touch({sandbox_id: timed.clock.now()})
    await timed.pass_minutes(1)
    assert await timed.state(sandbox_id) == ("destroying", "its time to live is over")


async def test_a_create_that_takes_too_long_becomes_an_error_and_its_job_void(timed: Timed) -> None:
    sandbox_id = await timed.begin()
    [job] = await timed.world.runner.claim()
    timed.world.runner.play = lambda job: [JobResult(job.lease, True, Observed.STARTED)]
    await timed.pass_minutes(61)
    state, cause = await timed.state(sandbox_id)
    assert (state, cause) == ("error", "Timeout while building snapshot on runner")
    await timed.world.runner.answer(job)
    assert timed.world.runner.voided == [job.id]


async def test_a_pull_that_talks_is_not_late(timed: Timed) -> None:
    sandbox_id = await timed.begin()
    await timed.world.runner.claim()
    await timed.pass_minutes(50)
    await timed.world.internal.append_build_log(sandbox_id, "still at it\n")
    await timed.pass_minutes(50)
    assert (await timed.state(sandbox_id))[0] == "pending_build"


async def test_work_that_is_never_finished_is_given_up(timed: Timed) -> None:
    sandbox_id = await timed.begin()
    for _ in range(5):
        assert len(await timed.world.runner.claim()) == 1
        await timed.pass_minutes(1)
    assert await timed.state(sandbox_id) == ("error", "create was given up after 5 attempts")


async def test_a_deletion_that_failed_is_tried_again(timed: Timed) -> None:
    sandbox_id = await timed.create()
    await timed.world.client.call("DELETE", f"/sandbox/{sandbox_id}")
    timed.world.runner.play = badly
    await timed.world.runner.work_once()
    assert (await timed.state(sandbox_id))[0] == "error"
    timed.world.runner.play = well
    await timed.pass_minutes(1)
    await timed.world.runner.work_once()
    assert timed.world.runner.jobs[-1].kind is JobKind.DESTROY
    assert (await timed.state(sandbox_id))[0] == "destroyed"


async def test_a_destroyed_record_goes_after_a_day(timed: Timed) -> None:
    sandbox_id = await timed.create()
    await timed.world.client.call("DELETE", f"/sandbox/{sandbox_id}")
    await timed.world.runner.work_once()
    await timed.pass_minutes(24 * 60 - 1)
    assert (await timed.state(sandbox_id))[0] == "destroyed"
    await timed.pass_minutes(1)
    assert (await timed.world.client.call("GET", f"/sandbox/{sandbox_id}")).status == 404


async def test_use_between_the_look_and_the_write_saves_the_sandbox(timed: Timed) -> None:
    sandbox_id = await timed.create(autoStopInterval=15)
    await timed.clock.advance(16 * 60)
    async with timed.world.plane.database.reading() as db:
        stale = await db.get_one(Sandbox, sandbox_id)
    await timed.world.internal.touch({sandbox_id: timed.clock.now()})
    await timed.world.plane.timers.stop_idle([stale], timed.clock.now())
    assert (await timed.state(sandbox_id))[0] == "started"


async def test_two_replicas_stop_an_idle_sandbox_once(timed: Timed) -> None:
    sandbox_id = await timed.create(autoStopInterval=1)
    await timed.clock.advance(61)
    await timed.world.plane.timers.look()
    await timed.world.plane.timers.look()
    read = await timed.world.client.call("GET", f"/_sandyard/sandboxes/{sandbox_id}")
    causes = [change["cause"] for change in read.json["history"]]
    assert causes.count("auto-stop after 1 min idle") == 1
