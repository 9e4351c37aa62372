"""Thousands of operations in random order, with a runtime that fails, loses and forgets, against the state tables.

After every step: what was answered is what the tables say, no sandbox waits for something that nobody does, and what
clients are shown exists. At the end everything settles, the runtime holds exactly what the records say, and after
deleting all of it nothing is left.
"""

import asyncio
import os
import tempfile
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from sandyard_api.errors import ApiError
from sandyard_api.jobs.client import LeaseVoid
from sandyard_api.jobs.wire import Observation
from sandyard_api.sandboxes.models import Sandbox
from sandyard_api.sandboxes.repairs import Wish
from sandyard_api.sandboxes.requests import read_create
from sandyard_api.sandboxes.states import REQUESTS, RESTING, SHOWN, Desired, Observed, Request
from sandyard_runner.errors import RuntimeFailure
from sandyard_runner.runtime.contract import PresentState
from tests.conftest import fresh_postgres_database
from tests.lifecycle.whole import Whole, open_whole

Answer = TypeVar("Answer")
STEP_SECONDS, END_SECONDS = 60.0, 300.0
"""For one step, and for all that is left to happen at the end of a life: machines stall."""
METHODS = ("ensure_image", "create", "start", "stop", "remove", "pause", "resume", "resize", "commit", "remove_image")
FAILED = (Observed.ERROR, Observed.BUILD_FAILED)
PRESENT = {
    Observed.STARTED: PresentState.RUNNING,
    Observed.PAUSED: PresentState.PAUSED,
    Observed.STOPPED: PresentState.STOPPED,
}
numbers = st.integers(min_value=0, max_value=10**6)


class Lifecycle(RuleBasedStateMachine):
    """One installation and what its users, its engine and its clock do."""

    database_url: str | None = None

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.stack = AsyncExitStack()
        self.folder = tempfile.TemporaryDirectory()
        url = fresh_postgres_database(self.database_url) if self.database_url else None
        url = url or f"sqlite:///{Path(self.folder.name) / 'test.db'}"
        self.whole: Whole = self.run(self.stack.enter_async_context(open_whole(url)))
        self.made: list[str] = []
        self.deleted: set[str] = set()

    def run(self, work: Awaitable[Answer], seconds: float = STEP_SECONDS) -> Answer:
        return self.loop.run_until_complete(_await(work, seconds))

    def row(self, number: int) -> Sandbox:
        """One that was made, deleted or not."""
        return self.run(self.whole.rows())[self.made[number % len(self.made)]]

    def asked(self, row: Sandbox, request: Request, work: Awaitable[Sandbox]) -> Sandbox | None:
        """Do it; it must be accepted where the tables say so, and refused with an error for clients elsewhere."""
        allowed = (row.observed, row.desired, request) in REQUESTS
        after, why = None, ""
        try:
            after = self.run(work)
        except ApiError as error:
            why = str(error)
        assert (allowed and why in EXCUSES) or (after is not None) == allowed, (row.observed, row.desired, request, why)
        return after

    @precondition(lambda self: len(self.made) < 8)
    @rule(ephemeral=st.booleans(), image=st.booleans(), auto=st.sampled_from(["none", "stop", "pause", "archive"]))
    def create(self, ephemeral: bool, image: bool, auto: str) -> None:
        body: dict[str, Any] = {"autoStopInterval": 5 if auto == "stop" else 0}
        body |= {"buildInfo": {"dockerfileContent": "FROM x"}} if image else {}
        body |= {"autoDeleteInterval": 0} if ephemeral else {"autoPauseInterval": 5 if auto == "pause" else 0}
        body |= {"autoArchiveInterval": 5} if auto == "archive" else {}
        wanted = read_create(body, default_snapshot="sandyard-default", region="local")
        row = self.run(self.whole.services.sandboxes.create(self.whole.organization_id, wanted))
        self.made.append(row.id)

    @precondition(lambda self: bool(self.made))
    @rule(number=numbers, choice=numbers, size=st.integers(1, 3))
    def ask_what_is_allowed(self, number: int, choice: int, size: int) -> None:
        """Of a sandbox that lives; where nothing may be asked of it, the runner works first."""
        rows = self.run(self.whole.rows())
        living = [rows[key] for key in self.made if rows[key].desired is not Desired.DESTROYED]
        if not living:
            return
        row = living[number % len(living)]
        if not (allowed := [each for each in UNDOABLE if (row.observed, row.desired, each) in REQUESTS]):
            self.claim_and_work(4)
            row = self.run(self.whole.rows())[row.id]
            allowed = [each for each in UNDOABLE if (row.observed, row.desired, each) in REQUESTS]
        if allowed:
            self.ask(row, allowed[choice % len(allowed)], size)

    @precondition(lambda self: bool(self.made))
    @rule(number=numbers, request=st.sampled_from([each for each in Request if each is not Request.SNAPSHOT]))
    def ask_anything(self, number: int, request: Request) -> None:
        self.ask(self.row(number), request, 2)

    @precondition(lambda self: bool(self.made))
    @rule(number=numbers)
    def delete(self, number: int) -> None:
        if number % 3 == 0:
            self.ask(self.row(number // 3), Request.DESTROY, 1)

    def ask(self, row: Sandbox, request: Request, size: int) -> None:
        """As a user does, and keep what came of it."""
        whole, owner = self.whole, row.organization_id
        sandboxes, repairs = whole.services.sandboxes, whole.services.repairs
        if request is Request.RESIZE:
            work = repairs.resize(owner, row.id, Wish(size, size, None))
        elif request in (Request.RECOVER, Request.RECOVER_STOPPED):
            work = repairs.recover(owner, row.id, skip_start=request is Request.RECOVER_STOPPED)
        elif request is Request.FORK:
            work = whole.services.lineage.fork(owner, row.id, None)
        elif request is Request.DESTROY:
            work = sandboxes.destroy(owner, row.id)
        else:
            work = sandboxes.request(owner, row.id, request)
        after = self.asked(row, request, work)
        if after is not None and request is Request.FORK:
            self.made.append(after.id)
        if after is not None and after.desired is Desired.DESTROYED:
            self.deleted.add(row.id)

    @rule(limit=st.integers(1, 4))
    def claim_and_work(self, limit: int) -> None:
        self.run(self.whole.claim(limit))
        self.run(self.whole.work())

    @rule()
    def claim_only(self) -> None:
        self.run(self.whole.claim(1))

    @precondition(lambda self: bool(self.whole.held))
    @rule(act_first=st.booleans())
    def runner_is_killed(self, act_first: bool) -> None:
        """What it had taken is claimed again when its lease is over; perhaps it was done already."""
        job = self.whole.held.pop()
        if act_first:
            self.run(_swallow(self.whole.actions.act(job)))

    @rule(method=st.sampled_from(METHODS), recoverable=st.booleans())
    def next_call_fails(self, method: str, recoverable: bool) -> None:
        self.whole.runtime.fail_next(method, RuntimeFailure(f"cannot {method} today", recoverable=recoverable))

    @precondition(lambda self: bool(self.made))
    @rule(number=numbers, told=st.booleans(), vanish=st.booleans())
    def something_dies(self, number: int, told: bool, vanish: bool) -> None:
        sandbox_id = self.row(number).id
        there = {item.sandbox_id: item.state for item in self.run(self.whole.runtime.present())}
        if sandbox_id not in there or (not vanish and there[sandbox_id] is PresentState.STOPPED):
            return
        if vanish:
            self.whole.runtime.vanish(sandbox_id)
        else:
            self.whole.runtime.kill(sandbox_id)
        if told:
            observed = Observed.ERROR if vanish else Observed.STOPPED
            seen = Observation(sandbox_id, observed, "killed: out of memory", self.whole.clock.now())
            self.run(self.whole.plane.observe([seen]))

    @rule(seconds=st.sampled_from([1, 40, 120, 400, 2000]))
    def time_passes(self, seconds: int) -> None:
        self.run(self.whole.clock.advance(seconds))
        self.run(self.whole.beat())
        self.run(self.whole.timers.look())

    @rule()
    def reconcile(self) -> None:
        try:
            self.run(self.whole.reconciler.run_once())
        except RuntimeFailure:
            return
        self.run(self.whole.observations.flush())

    @precondition(lambda self: bool(self.made))
    @rule(seed=st.integers(0, 2**32))
    def a_busy_hour(self, seed: int) -> None:
        """Many of the same steps: the lives are longer than what is drawn one by one."""
        chance = Random(seed)  # noqa: S311  repeatable on purpose
        for _ in range(40):
            self.a_step(chance)
            self.nobody_waits_for_what_nobody_does()
            self.no_record_is_lost_and_no_deletion_taken_back()

    def a_step(self, chance: Random) -> None:
        draw = chance.random()
        if draw < 0.40:
            self.ask_what_is_allowed(chance.randrange(1000), chance.randrange(1000), chance.randint(1, 3))
        elif draw < 0.62:
            self.claim_and_work(4)
        elif draw < 0.66:
            self.claim_only()
        elif draw < 0.70 and self.whole.held:
            self.runner_is_killed(chance.random() < 0.5)
        elif draw < 0.82:
            self.next_call_fails(chance.choice(METHODS), chance.random() < 0.5)
        elif draw < 0.87:
            self.something_dies(chance.randrange(1000), chance.random() < 0.5, chance.random() < 0.3)
        elif draw < 0.94:
            self.time_passes(chance.choice([1, 40, 400]))
        else:
            self.reconcile()

    @invariant()
    def nobody_waits_for_what_nobody_does(self) -> None:
        busy = self.run(self.whole.busy())
        for row in self.run(self.whole.rows()).values():
            assert (row.observed, row.desired) in SHOWN
            rests = RESTING.get(row.observed) is row.desired or row.observed in (*FAILED, Observed.DESTROYED)
            assert rests or row.id in busy or row.desired is Desired.DESTROYED, (row.observed, row.desired)

    @invariant()
    def no_record_is_lost_and_no_deletion_taken_back(self) -> None:
        rows = self.run(self.whole.rows())
        assert set(self.made) <= set(rows)
        assert all(rows[sandbox_id].desired is Desired.DESTROYED for sandbox_id in self.deleted)
        assert all(row.error_reason for row in rows.values() if row.observed in FAILED)

    def teardown(self) -> None:
        try:
            self.run(self.settle_and_compare(), END_SECONDS)
            self.run(self.delete_everything(), END_SECONDS)
        finally:
            self.run(self.stack.aclose())
            self.loop.close()
            self.folder.cleanup()

    async def settle_and_compare(self) -> None:
        self.whole.runtime.forgive()
        await self.whole.settle()
        there = {item.sandbox_id: item.state for item in await self.whole.runtime.present()}
        for row in (await self.whole.rows()).values():
            if row.observed in PRESENT:
                assert there.get(row.id) is PRESENT[row.observed], (row.observed, row.desired)
            elif row.observed is Observed.ARCHIVED:
                assert row.id not in there
                assert row.archive_image in self.whole.runtime.images
            else:
                assert row.observed in (*FAILED, Observed.DESTROYED), (row.observed, row.desired)
        assert there.keys() <= {key for key, row in (await self.whole.rows()).items() if not row.destroyed_at}

    async def delete_everything(self) -> None:
        for sandbox_id in reversed(self.made):
            row = (await self.whole.rows())[sandbox_id]
            if row.desired is not Desired.DESTROYED:
                await self.whole.services.sandboxes.destroy(row.organization_id, row.id)
        await self.whole.settle()
        assert await self.whole.runtime.present() == []
        assert self.whole.runtime.images == set()
        assert {row.observed for row in (await self.whole.rows()).values()} <= {Observed.DESTROYED}


UNDOABLE = tuple(each for each in Request if each not in (Request.DESTROY, Request.SNAPSHOT))
"""What can be asked again and again."""
EXCUSES = frozenset(
    (
        "Ephemeral sandboxes cannot be archived",
        "Cannot delete sandbox which has active fork children. The forks must be deleted first.",
        "No resource changes specified - sandbox is already at the desired configuration",
        "Sandbox must be in stopped state to decrease the number of CPU cores",
        "Sandbox must be in stopped state to decrease memory",
        "Sandbox is not in a recoverable state",
        "Sandbox recovery has been attempted recently. Please try again later",
    )
)
"""Why a request may be refused that the state allows."""


async def _await(work: Awaitable[Answer], seconds: float) -> Answer:
    async with asyncio.timeout(seconds):
        return await work


async def _swallow(work: Awaitable[object]) -> None:
    try:
        await work
    except LeaseVoid:
        return


def run(machine: type[Lifecycle], examples: int, steps: int) -> None:
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=checks,
        derandomize="SANDYARD_TEST_RANDOM" not in os.environ,
        database=None,
        phases=(Phase.generate,),  # a life is told whole: making it shorter takes longer than reading it
        print_blob=True,
    )
    run_state_machine_as_test(machine, settings=chosen)


@pytest.mark.timeout(600)
def test_random_lives_on_sqlite_end_as_the_tables_say() -> None:
    run(Lifecycle, examples=12, steps=15)


@pytest.mark.postgres
@pytest.mark.timeout(600)
def test_random_lives_on_postgres_end_as_the_tables_say(postgres_server_url: str) -> None:
    run(type("OnPostgres", (Lifecycle,), {"database_url": postgres_server_url}), examples=2, steps=10)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_long_run_of_random_lives() -> None:
    run(Lifecycle, examples=100, steps=40)
