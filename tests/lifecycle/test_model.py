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
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
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

    def run(self, work: Awaitable[Answer]) -> Answer:
        return self.loop.run_until_complete(asyncio.wait_for(_await(work), 60))

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
    @rule(number=numbers, request=st.sampled_from([Request.START, Request.STOP, Request.PAUSE, Request.ARCHIVE]))
    def ask(self, number: int, request: Request) -> None:
        row, sandboxes = self.row(number), self.whole.services.sandboxes
        ephemeral_stop = request is Request.STOP and row.is_ephemeral
        after = self.asked(row, request, sandboxes.request(self.whole.organization_id, row.id, request))
        if after is not None and ephemeral_stop:
            self.deleted.add(row.id)

    @precondition(lambda self: bool(self.made))
    @rule(number=numbers, cpu=st.integers(1, 3), memory=st.integers(1, 3))
    def resize(self, number: int, cpu: int, memory: int) -> None:
        row = self.row(number)
        work = self.whole.services.repairs.resize(self.whole.organization_id, row.id, Wish(cpu, memory, None))
        self.asked(row, Request.RESIZE, work)

    @precondition(lambda self: bool(self.made))
    @rule(number=numbers, skip=st.booleans())
    def recover(self, number: int, skip: bool) -> None:
        row = self.row(number)
        work = self.whole.services.repairs.recover(self.whole.organization_id, row.id, skip_start=skip)
        self.asked(row, Request.RECOVER_STOPPED if skip else Request.RECOVER, work)

    @precondition(lambda self: 0 < len(self.made) < 10)
    @rule(number=numbers)
    def fork(self, number: int) -> None:
        row = self.row(number)
        child = self.asked(row, Request.FORK, self.whole.services.lineage.fork(row.organization_id, row.id, None))
        if child is not None:
            self.made.append(child.id)

    @precondition(lambda self: bool(self.made))
    @rule(number=numbers)
    def delete(self, number: int) -> None:
        row = self.row(number)
        work = self.whole.services.sandboxes.destroy(self.whole.organization_id, row.id)
        if self.asked(row, Request.DESTROY, work) is not None:
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
            self.run(self.settle_and_compare())
            self.run(self.delete_everything())
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


async def _await(work: Awaitable[Answer]) -> Answer:
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
        print_blob=True,
    )
    run_state_machine_as_test(machine, settings=chosen)


@pytest.mark.timeout(600)
def test_random_lives_on_sqlite_end_as_the_tables_say() -> None:
    run(Lifecycle, examples=30, steps=40)


@pytest.mark.postgres
@pytest.mark.timeout(600)
def test_random_lives_on_postgres_end_as_the_tables_say(postgres_server_url: str) -> None:
    run(type("OnPostgres", (Lifecycle,), {"database_url": postgres_server_url}), examples=8, steps=40)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_long_run_of_random_lives() -> None:
    run(Lifecycle, examples=300, steps=100)
