"""The tables of the state machine, over the full product of states and events."""

import itertools

import pytest

from sandyard_api.sandboxes.states import (
    REQUESTS,
    SHOWN,
    SIGHTINGS,
    TIME_LIMIT_MINUTES,
    Desired,
    Observed,
    Refusal,
    Request,
    Shown,
    desired_after,
    refusal,
    render,
)

PAIRS = list(itertools.product(Observed, Desired))
FAILED = (Observed.ERROR, Observed.BUILD_FAILED)
ENDED = (Observed.DESTROYING, Observed.DESTROYED)


@pytest.mark.parametrize(("observed", "desired", "request_"), list(itertools.product(Observed, Desired, Request)))
def test_every_request_moves_or_is_refused_by_name(observed: Observed, desired: Desired, request_: Request) -> None:
    after = REQUESTS.get((observed, desired, request_))
    if after is None:
        assert refusal(observed, desired, request_) in Refusal
        return
    wanted = {Request.START: Desired.STARTED, Request.STOP: Desired.STOPPED, Request.DESTROY: Desired.DESTROYED}
    assert after[1] is wanted[request_]


@pytest.mark.parametrize(("observed", "desired"), PAIRS)
def test_whatever_lives_can_be_deleted(observed: Observed, desired: Desired) -> None:
    can = (observed, desired, Request.DESTROY) in REQUESTS
    assert can == ((desired is not Desired.DESTROYED and observed is not Observed.DESTROYED) or observed in FAILED)


def test_a_request_shows_its_transition_in_its_own_answer() -> None:
    assert SHOWN[REQUESTS[Observed.STARTED, Desired.STARTED, Request.STOP]] is Shown.STOPPING
    assert SHOWN[REQUESTS[Observed.STOPPED, Desired.STOPPED, Request.START]] is Shown.STARTING
    destroys = {SHOWN[after] for (_, _, request), after in REQUESTS.items() if request is Request.DESTROY}
    assert destroys == {Shown.DESTROYING}


@pytest.mark.parametrize(("observed", "desired"), PAIRS)
def test_every_pair_is_shown_as_something(observed: Observed, desired: Desired) -> None:
    assert SHOWN[observed, desired] in Shown


@pytest.mark.parametrize("observed", [o for o in Observed if o is not Observed.DESTROYED])
def test_everything_can_be_seen_destroyed_and_nothing_comes_back(observed: Observed) -> None:
    assert Observed.DESTROYED in SIGHTINGS[observed]
    assert observed not in SIGHTINGS[Observed.DESTROYED]


@pytest.mark.parametrize("observed", FAILED)
def test_a_failure_is_left_only_by_deletion(observed: Observed) -> None:
    assert set(SIGHTINGS[observed]) == set(ENDED)


@pytest.mark.parametrize("observed", [o for o in Observed if o not in FAILED])
def test_every_passing_state_has_a_time_limit(observed: Observed) -> None:
    resting = (Observed.STARTED, Observed.STOPPED, *ENDED)
    assert (observed in TIME_LIMIT_MINUTES) == (observed not in resting)


def test_a_sandbox_that_died_is_not_shown_as_starting() -> None:
    desired = desired_after(Observed.STOPPED, Desired.STARTED)
    assert SHOWN[Observed.STOPPED, desired] is Shown.STOPPED
    assert desired_after(Observed.STOPPED, Desired.DESTROYED) is Desired.DESTROYED


@pytest.mark.parametrize(
    ("observed", "desired", "request_", "why"),
    [
        (Observed.STOPPED, Desired.STOPPED, Request.STOP, Refusal.NOT_STOPPABLE),
        (Observed.STARTING, Desired.STARTED, Request.STOP, Refusal.CHANGING),
        (Observed.STARTED, Desired.STOPPED, Request.START, Refusal.CHANGING),
        (Observed.ERROR, Desired.STARTED, Request.START, Refusal.ERRORED),
        (Observed.BUILD_FAILED, Desired.STARTED, Request.STOP, Refusal.ERRORED),
        (Observed.STARTED, Desired.DESTROYED, Request.START, Refusal.GONE),
        (Observed.DESTROYED, Desired.DESTROYED, Request.DESTROY, Refusal.GONE),
    ],
)
def test_refusals_say_why(observed: Observed, desired: Desired, request_: Request, why: Refusal) -> None:
    assert (observed, desired, request_) not in REQUESTS
    assert refusal(observed, desired, request_) is why


def test_the_page_names_every_state() -> None:
    page = render()
    assert all(f"| {observed} |" in page for observed in Observed)
