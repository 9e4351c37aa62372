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
    PAUSING = "pausing"
    PAUSED = "paused"  # its processes are held still
    RESUMING = "resuming"
    RESIZING = "resizing"
    SNAPSHOTTING = "snapshotting"  # its files are being kept as an image; it goes on as it was
    ARCHIVING = "archiving"
    ARCHIVED = "archived"  # its files are kept as an image, and nothing else is left of it
    RESTORING = "restoring"
    FORKING = "forking"  # a new one, whose files are being taken from another
    DESTROYING = "destroying"
    DESTROYED = "destroyed"
    ERROR = "error"
    BUILD_FAILED = "build_failed"


class Desired(StrEnum):
    """What the user wants of a sandbox."""

    STARTED = "started"
    STOPPED = "stopped"
    PAUSED = "paused"
    ARCHIVED = "archived"
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
    PAUSE = "pause"
    RESIZE = "resize"
    SNAPSHOT = "snapshot"
    FORK = "fork"
    ARCHIVE = "archive"
    RECOVER = "recover"
    RECOVER_STOPPED = "recover stopped"  # recover, without a start
    NETWORK = "network"  # other rules for its way out
    DESTROY = "destroy"


class Refusal(Enum):
    """Why a request is not possible now."""

    GONE = "gone"
    ERRORED = "errored"
    CHANGING = "changing"
    NOT_STARTABLE = "not startable"
    NOT_STOPPABLE = "not stoppable"
    NOT_STARTED = "not started"
    NOT_STOPPED = "not stopped"
    NOT_AT_REST = "neither started nor stopped"
    NOT_FAILED = "not failed"


Pair = tuple[Observed, Desired]

_FAILED = (Observed.ERROR, Observed.BUILD_FAILED)
_LIVING = (Desired.STARTED, Desired.STOPPED, Desired.PAUSED, Desired.ARCHIVED)

RESTING: Mapping[Observed, Desired] = {
    Observed.STARTED: Desired.STARTED,
    Observed.STOPPED: Desired.STOPPED,
    Observed.PAUSED: Desired.PAUSED,
    Observed.ARCHIVED: Desired.ARCHIVED,
}
"""States in which a sandbox may stay, and what is wanted then."""

_STARTED = (Observed.STARTED, Desired.STARTED)
_STOPPED = (Observed.STOPPED, Desired.STOPPED)
_PAUSED = (Observed.PAUSED, Desired.PAUSED)

REQUESTS: Mapping[tuple[Observed, Desired, Request], Pair] = {
    (*_STARTED, Request.START): _STARTED,
    (*_STOPPED, Request.START): (Observed.STOPPED, Desired.STARTED),
    (*_PAUSED, Request.START): (Observed.PAUSED, Desired.STARTED),
    (Observed.ARCHIVED, Desired.ARCHIVED, Request.START): (Observed.ARCHIVED, Desired.STARTED),
    # An archiving under way is given up: its files are in one place or the other.
    (Observed.STOPPED, Desired.ARCHIVED, Request.START): (Observed.ARCHIVING, Desired.STARTED),
    (Observed.ARCHIVING, Desired.ARCHIVED, Request.START): (Observed.ARCHIVING, Desired.STARTED),
    (*_STARTED, Request.STOP): (Observed.STARTED, Desired.STOPPED),
    (*_PAUSED, Request.STOP): (Observed.PAUSED, Desired.STOPPED),
    (*_STARTED, Request.PAUSE): (Observed.STARTED, Desired.PAUSED),
    (*_STOPPED, Request.ARCHIVE): (Observed.STOPPED, Desired.ARCHIVED),
    # What leaves a sandbox where it was shows at once, and comes back to what is wanted all the while.
    (*_STARTED, Request.RESIZE): (Observed.RESIZING, Desired.STARTED),
    (*_STOPPED, Request.RESIZE): (Observed.RESIZING, Desired.STOPPED),
    (*_STARTED, Request.SNAPSHOT): (Observed.SNAPSHOTTING, Desired.STARTED),
    (*_STOPPED, Request.SNAPSHOT): (Observed.SNAPSHOTTING, Desired.STOPPED),
    # The fork moves, not the one it is taken from.
    (*_STARTED, Request.FORK): _STARTED,
    # Rules are held by the runner, at once or from the next start; the sandbox does not move.
    **{(seen, want, Request.NETWORK): (seen, want) for seen, want in RESTING.items()},
    **{(Observed.ERROR, here, Request.RECOVER): (Observed.STARTING, Desired.STARTED) for here in _LIVING},
    **{(Observed.ERROR, here, Request.RECOVER_STOPPED): (Observed.STOPPING, Desired.STOPPED) for here in _LIVING},
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

_UNMET: Mapping[Request, Refusal] = {
    Request.START: Refusal.NOT_STARTABLE,
    Request.STOP: Refusal.NOT_STOPPABLE,
    Request.PAUSE: Refusal.NOT_STARTED,
    Request.FORK: Refusal.NOT_STARTED,
    Request.NETWORK: Refusal.NOT_STARTABLE,
    Request.RESIZE: Refusal.NOT_AT_REST,
    Request.SNAPSHOT: Refusal.NOT_AT_REST,
    Request.ARCHIVE: Refusal.NOT_STOPPED,
    Request.RECOVER: Refusal.NOT_FAILED,
    Request.RECOVER_STOPPED: Refusal.NOT_FAILED,
    Request.DESTROY: Refusal.GONE,
}
"""What a request asks of the state it finds."""


def refusal(observed: Observed, desired: Desired, request: Request) -> Refusal:
    """Why `REQUESTS` has no line for this."""
    if desired is Desired.DESTROYED or observed in (Observed.DESTROYING, Observed.DESTROYED):
        return Refusal.GONE
    if observed in _FAILED and request in (Request.START, Request.STOP, Request.NETWORK):
        return Refusal.ERRORED
    if observed in _FAILED or RESTING.get(observed) is desired:
        return _UNMET[request]
    return Refusal.CHANGING


_PREPARING = (
    Observed.PULLING,
    Observed.BUILDING,
    Observed.CREATING,
    Observed.STARTING,
    Observed.RESTORING,
    Observed.FORKING,
)
_ENDING = (Observed.DESTROYING, Observed.DESTROYED)
_BACK = frozenset({Observed.STARTED, Observed.STOPPED, Observed.ERROR, *_ENDING})

SIGHTINGS: Mapping[Observed, frozenset[Observed]] = {
    # A job whose lease ran out is done again from its beginning: these states may follow each other both ways.
    **{
        here: frozenset({*_PREPARING, *_FAILED, *_BACK}) - {here}
        for here in (Observed.PENDING, Observed.PENDING_BUILD, *_PREPARING)
    },
    Observed.STARTED: _BACK - {Observed.STARTED} | {Observed.STOPPING, Observed.PAUSING, Observed.PAUSED},
    Observed.STOPPING: _BACK | {Observed.CREATING, Observed.RESTORING, Observed.FORKING, Observed.PULLING},
    Observed.STOPPED: _BACK - {Observed.STOPPED}
    | {Observed.STARTING, Observed.ARCHIVING, Observed.ARCHIVED, Observed.RESTORING},
    Observed.PAUSING: _BACK | {Observed.PAUSED, Observed.STOPPING},
    Observed.PAUSED: _BACK | {Observed.RESUMING, Observed.STOPPING},
    Observed.RESUMING: _BACK | {Observed.PAUSED},
    Observed.RESIZING: _BACK,
    Observed.SNAPSHOTTING: _BACK,
    Observed.ARCHIVING: _BACK | {Observed.ARCHIVED, Observed.RESTORING, Observed.STARTING},
    Observed.ARCHIVED: _BACK | {Observed.RESTORING, Observed.STARTING},
    Observed.DESTROYING: frozenset({Observed.DESTROYED, Observed.ERROR}),
    Observed.DESTROYED: frozenset(),
    Observed.ERROR: frozenset(_ENDING),
    Observed.BUILD_FAILED: frozenset(_ENDING),
}
"""What may be seen next. Seeing the same again is no move."""


def desired_after(observed: Observed, desired: Desired) -> Desired:
    """What is wanted once `observed` was seen without having been asked for: what came to rest stays there."""
    return desired if desired is Desired.DESTROYED else RESTING.get(observed, desired)


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
    Observed.PAUSING: Shown.PAUSING,
    Observed.PAUSED: Shown.PAUSED,
    Observed.RESUMING: Shown.RESUMING,
    Observed.RESIZING: Shown.RESIZING,
    Observed.SNAPSHOTTING: Shown.SNAPSHOTTING,
    Observed.ARCHIVING: Shown.ARCHIVING,
    Observed.ARCHIVED: Shown.ARCHIVED,
    Observed.RESTORING: Shown.RESTORING,
    Observed.FORKING: Shown.FORKING,
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
    (Observed.PAUSED, Desired.STOPPED): Shown.STOPPING,
    (Observed.STARTED, Desired.PAUSED): Shown.PAUSING,
    (Observed.PAUSED, Desired.STARTED): Shown.RESUMING,
    (Observed.STOPPED, Desired.ARCHIVED): Shown.ARCHIVING,
    (Observed.ARCHIVED, Desired.STARTED): Shown.RESTORING,
    (Observed.ARCHIVING, Desired.STARTED): Shown.RESTORING,
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
    Observed.PAUSING: 5,
    Observed.RESUMING: 5,
    Observed.RESIZING: 5,
    Observed.SNAPSHOTTING: 60,
    Observed.ARCHIVING: 60,
    Observed.RESTORING: 30,
    Observed.FORKING: 60,
}
"""How long a passing state may last before it becomes an error."""

WAITING_LIMIT_MINUTES = 15
"""How long a resting state may last when another is wanted: longer, and no runner is there to do it."""


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
