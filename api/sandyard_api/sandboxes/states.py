"""The sandbox state machine as tables, for service, runner, reconciler, tests and documents. Imports nothing of ours.

`REQUESTS` says what a request makes of the desired state, `SIGHTINGS` what a runner's word makes of the observed one,
`SHOWN` what clients see of the pair. What is in none of them is refused.
"""

from collections.abc import Mapping
from enum import Enum, StrEnum


class Observed(StrEnum):
    """What the runner last saw of a sandbox."""

    PENDING = "pending"  # a row, and nothing else yet
    PENDING_BUILD = "pending_build"  # a row whose image has to be fetched or built first
    PULLING = "pulling"  # its image is being fetched
    BUILDING = "building"  # its image is being built
    CREATING = "creating"
    STARTING = "starting"
    STARTED = "started"
    STOPPING = "stopping"
    STOPPED = "stopped"
    DESTROYING = "destroying"
    DESTROYED = "destroyed"
    ERROR = "error"
    BUILD_FAILED = "build_failed"


class Desired(StrEnum):
    """What the user wants of a sandbox."""

    STARTED = "started"
    STOPPED = "stopped"
    DESTROYED = "destroyed"


class Shown(StrEnum):
    """What clients are shown: the protocol's own list."""

    CREATING = "creating"
    RESTORING = "restoring"
    DESTROYED = "destroyed"
    DESTROYING = "destroying"
    STARTED = "started"
    STOPPED = "stopped"
    STARTING = "starting"
    STOPPING = "stopping"
    ERROR = "error"
    BUILD_FAILED = "build_failed"
    PENDING_BUILD = "pending_build"
    BUILDING_SNAPSHOT = "building_snapshot"
    UNKNOWN = "unknown"
    PULLING_SNAPSHOT = "pulling_snapshot"
    ARCHIVED = "archived"
    ARCHIVING = "archiving"
    RESIZING = "resizing"
    SNAPSHOTTING = "snapshotting"
    FORKING = "forking"
    PAUSING = "pausing"
    PAUSED = "paused"
    RESUMING = "resuming"


class Request(StrEnum):
    """What somebody, or a timer, may ask of a sandbox."""

    START = "start"
    STOP = "stop"
    DESTROY = "destroy"


class Refusal(Enum):
    """Why a request is not possible now."""

    GONE = "gone"
    ERRORED = "errored"
    CHANGING = "changing"
    NOT_STOPPABLE = "not stoppable"


Pair = tuple[Observed, Desired]

_FAILED = (Observed.ERROR, Observed.BUILD_FAILED)
_LIVING = (Desired.STARTED, Desired.STOPPED)

REQUESTS: Mapping[tuple[Observed, Desired, Request], Pair] = {
    (Observed.STARTED, Desired.STARTED, Request.START): (Observed.STARTED, Desired.STARTED),
    (Observed.STOPPED, Desired.STOPPED, Request.START): (Observed.STOPPED, Desired.STARTED),
    (Observed.STARTED, Desired.STARTED, Request.STOP): (Observed.STARTED, Desired.STOPPED),
    # Whatever lives may be deleted at any moment; a job that runs for it becomes void.
    **{
        (observed, desired, Request.DESTROY): (observed, Desired.DESTROYED)
        for observed in Observed
        for desired in _LIVING
        if observed not in (*_FAILED, Observed.DESTROYED)
    },
    # A failed one leaves its failure behind, so that clients see `destroying` and not the old error.
    **{
        (observed, desired, Request.DESTROY): (Observed.DESTROYING, Desired.DESTROYED)
        for observed in _FAILED
        for desired in Desired
    },
}
"""`(observed, desired, request)` to the pair after it: every request that is accepted."""


def refusal(observed: Observed, desired: Desired, request: Request) -> Refusal:
    """Why `REQUESTS` has no line for this."""
    if desired is Desired.DESTROYED or observed in (Observed.DESTROYING, Observed.DESTROYED):
        return Refusal.GONE
    if observed in _FAILED:
        return Refusal.ERRORED
    if request is Request.STOP and (observed, desired) == (Observed.STOPPED, Desired.STOPPED):
        return Refusal.NOT_STOPPABLE
    return Refusal.CHANGING


_PREPARING = (Observed.PULLING, Observed.BUILDING, Observed.CREATING, Observed.STARTING)
_ENDING = (Observed.DESTROYING, Observed.DESTROYED)

SIGHTINGS: Mapping[Observed, frozenset[Observed]] = {
    # A job whose lease ran out is done again from its beginning: these states may follow each other both ways.
    **{
        here: frozenset({*_PREPARING, *_ENDING, *_FAILED, Observed.STARTED, Observed.STOPPED}) - {here}
        for here in (Observed.PENDING, Observed.PENDING_BUILD, *_PREPARING)
    },
    Observed.STARTED: frozenset({Observed.STOPPING, Observed.STOPPED, Observed.ERROR, *_ENDING}),
    Observed.STOPPING: frozenset({Observed.STARTED, Observed.STOPPED, Observed.ERROR, *_ENDING}),
    Observed.STOPPED: frozenset({Observed.STARTING, Observed.STARTED, Observed.ERROR, *_ENDING}),
    Observed.DESTROYING: frozenset({Observed.DESTROYED, Observed.ERROR}),
    Observed.DESTROYED: frozenset(),
    Observed.ERROR: frozenset(_ENDING),
    Observed.BUILD_FAILED: frozenset(_ENDING),
}
"""What may be seen next. Seeing the same again is no move."""


def desired_after(observed: Observed, desired: Desired) -> Desired:
    """What is wanted once `observed` was seen without having been asked for: a sandbox that stopped stays stopped."""
    if observed is Observed.STOPPED and desired is Desired.STARTED:
        return Desired.STOPPED
    return desired


_SAME: Mapping[Observed, Shown] = {
    Observed.PENDING: Shown.CREATING,
    Observed.PENDING_BUILD: Shown.PENDING_BUILD,
    Observed.PULLING: Shown.PULLING_SNAPSHOT,
    Observed.BUILDING: Shown.BUILDING_SNAPSHOT,
    Observed.CREATING: Shown.CREATING,
    Observed.STARTING: Shown.STARTING,
    Observed.STARTED: Shown.STARTED,
    Observed.STOPPING: Shown.STOPPING,
    Observed.STOPPED: Shown.STOPPED,
    Observed.DESTROYING: Shown.DESTROYING,
    Observed.DESTROYED: Shown.DESTROYED,
    Observed.ERROR: Shown.ERROR,
    Observed.BUILD_FAILED: Shown.BUILD_FAILED,
}

SHOWN: Mapping[Pair, Shown] = {
    **{(observed, desired): shown for observed, shown in _SAME.items() for desired in Desired},
    # An accepted request shows in its own answer, before any runner acted.
    (Observed.STOPPED, Desired.STARTED): Shown.STARTING,
    (Observed.STARTED, Desired.STOPPED): Shown.STOPPING,
    **{
        (observed, Desired.DESTROYED): Shown.DESTROYING
        for observed in Observed
        if observed not in (*_FAILED, Observed.DESTROYED)
    },
}
"""What clients see of every pair."""

WAITING_FOR_IMAGE = frozenset({Observed.PENDING_BUILD, Observed.PENDING, Observed.PULLING, Observed.BUILDING})
"""While one of these was seen last, the build log may still grow."""

TIME_LIMIT_MINUTES: Mapping[Observed, int] = {
    Observed.PENDING: 15,
    Observed.PENDING_BUILD: 60,
    Observed.PULLING: 30,
    Observed.BUILDING: 60,
    Observed.CREATING: 15,
    Observed.STARTING: 5,
    Observed.STOPPING: 15,
}
"""How long a passing state may last before it becomes an error."""


def render() -> str:
    """`docs/states.md`: the tables above for readers."""
    lines = ["# Sandbox states", "", "What may be observed next, as a runner reports it:", "", "```mermaid"]
    lines += ["stateDiagram-v2", "    [*] --> pending", "    [*] --> pending_build"]
    lines += [f"    {here} --> {there}" for here, nexts in SIGHTINGS.items() for there in sorted(nexts)]
    lines += ["```", "", "What requests make of `observed, desired`; what has no line is refused:", ""]
    lines += ["| observed | desired | request | observed after | desired after |", "|---|---|---|---|---|"]
    lines += [f"| {o} | {d} | {request} | {pair[0]} | {pair[1]} |" for (o, d, request), pair in REQUESTS.items()]
    lines += ["", "What clients are shown:", "", "| observed | " + " | ".join(f"desired {d}" for d in Desired) + " |"]
    lines += ["|---|" + "---|" * len(Desired)]
    lines += [f"| {seen} | " + " | ".join(SHOWN[seen, wanted] for wanted in Desired) + " |" for seen in Observed]
    lines += ["", "How long a passing state may last:", "", "| observed | minutes |", "|---|---|"]
    lines += [f"| {seen} | {minutes} |" for seen, minutes in TIME_LIMIT_MINUTES.items()]
    return "\n".join(lines) + "\n"
