"""The tables of the state machine, over the full product of states and events."""

import itertools

import pytest

from sandyard_api.sandboxes.moves import REFUSED
from sandyard_api.sandboxes.states import (
    REQUESTS,
    RESTING,
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
WANTED = {
    Request.START: Desired.STARTED,
    Request.STOP: Desired.STOPPED,
    Request.PAUSE: Desired.PAUSED,
    Request.ARCHIVE: Desired.ARCHIVED,
    Request.RECOVER: Desired.STARTED,
    Request.RECOVER_STOPPED: Desired.STOPPED,
    Request.DESTROY: Desired.DESTROYED,
}
"""What each request makes one want; the others leave it as it is."""
ENDED = (Observed.DESTROYING, Observed.DESTROYED)


@pytest.mark.parametrize(("observed", "desired", "request_"), list(itertools.product(Observed, Desired, Request)))
def test_every_request_moves_or_is_refused_by_name(observed: Observed, desired: Desired, request_: Request) -> None:
    after = REQUESTS.get((observed, desired, request_))
    if after is None:
        assert refusal(observed, desired, request_) in Refusal
        return
    assert after[1] is WANTED.get(request_, desired)


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
def test_no_runner_makes_a_failure_good_unasked(observed: Observed) -> None:
    assert set(SIGHTINGS[observed]) == set(ENDED)


@pytest.mark.parametrize("observed", [o for o in Observed if o not in FAILED])
def test_every_passing_state_has_a_time_limit(observed: Observed) -> None:
    resting = (*RESTING, *ENDED)
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
        (Observed.STOPPED, Desired.STOPPED, Request.PAUSE, Refusal.NOT_STARTED),
        (Observed.STARTING, Desired.STARTED, Request.PAUSE, Refusal.CHANGING),
        (Observed.ERROR, Desired.STARTED, Request.PAUSE, Refusal.NOT_STARTED),
        (Observed.PAUSED, Desired.PAUSED, Request.FORK, Refusal.NOT_STARTED),
        (Observed.STARTED, Desired.STARTED, Request.ARCHIVE, Refusal.NOT_STOPPED),
        (Observed.STOPPED, Desired.ARCHIVED, Request.ARCHIVE, Refusal.CHANGING),
        (Observed.ARCHIVED, Desired.ARCHIVED, Request.STOP, Refusal.NOT_STOPPABLE),
        (Observed.PAUSED, Desired.PAUSED, Request.RESIZE, Refusal.NOT_AT_REST),
        (Observed.STARTED, Desired.STARTED, Request.RECOVER, Refusal.NOT_FAILED),
        (Observed.BUILD_FAILED, Desired.STARTED, Request.RECOVER, Refusal.NOT_FAILED),
        (Observed.BUILD_FAILED, Desired.STARTED, Request.STOP, Refusal.ERRORED),
        (Observed.STARTED, Desired.DESTROYED, Request.START, Refusal.GONE),
        (Observed.DESTROYED, Desired.DESTROYED, Request.DESTROY, Refusal.GONE),
    ],
)
def test_refusals_say_why(observed: Observed, desired: Desired, request_: Request, why: Refusal) -> None:
    assert (observed, desired, request_) not in REQUESTS
    assert refusal(observed, desired, request_) is why


@pytest.mark.parametrize(("observed", "desired"), PAIRS)
def test_a_request_that_is_accepted_leads_to_where_a_runner_can_take_it_from(
    observed: Observed, desired: Desired
) -> None:
    for request_ in Request:
        if (after := REQUESTS.get((observed, desired, request_))) is None:
            continue
        goals = {Desired(RESTING[seen]) for seen in reachable(after[0]) if seen in RESTING}
        assert after[1] is Desired.DESTROYED or after[1] in goals
        assert Observed.DESTROYED in reachable(after[0])


def reachable(observed: Observed) -> set[Observed]:
    """What can be seen one day, from here, without another request."""
    found, new = {observed}, [observed]
    while new:
        more = SIGHTINGS[new.pop()] - found
        found |= more
        new += more
    return found


@pytest.mark.parametrize(("observed", "desired"), PAIRS)
def test_what_is_seen_unasked_at_rest_stays_there(observed: Observed, desired: Desired) -> None:
    after = desired_after(observed, desired)
    if desired is Desired.DESTROYED:
        assert after is Desired.DESTROYED
    else:
        assert after is RESTING.get(observed, desired)


def test_no_refusal_without_words() -> None:
    words = {why for why in Refusal if why not in REFUSED}
    assert words == {Refusal.GONE, Refusal.CHANGING, Refusal.NOT_STARTED, Refusal.NOT_AT_REST}


def test_the_page_names_every_state() -> None:
    page = render()
    assert all(f"| {observed} |" in page for observed in Observed)
