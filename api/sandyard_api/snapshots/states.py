"""The states of a snapshot and what may follow them. Imports nothing of ours."""

from collections.abc import Mapping
from enum import StrEnum


class SnapshotState(StrEnum):
    """The protocol's own list."""

    PENDING = "pending"  # waits for a runner
    PULLING = "pulling"
    BUILDING = "building"
    SNAPSHOTTING = "snapshotting"  # being made from a sandbox
    ACTIVE = "active"
    INACTIVE = "inactive"
    ERROR = "error"
    BUILD_FAILED = "build_failed"
    REMOVING = "removing"


PREPARING = (SnapshotState.PENDING, SnapshotState.PULLING, SnapshotState.BUILDING)
"""A runner has, or is to get, work for it; its log may still grow."""

MOVES: Mapping[SnapshotState, frozenset[SnapshotState]] = {
    # A runner whose lease ran out does it again from the beginning: these may follow each other both ways.
    **{
        here: frozenset({*PREPARING, SnapshotState.ACTIVE, SnapshotState.ERROR, SnapshotState.BUILD_FAILED})
        for here in PREPARING
    },
    SnapshotState.SNAPSHOTTING: frozenset({SnapshotState.ACTIVE, SnapshotState.ERROR}),
    SnapshotState.ACTIVE: frozenset({SnapshotState.INACTIVE}),
    SnapshotState.INACTIVE: frozenset({SnapshotState.PENDING}),
    SnapshotState.ERROR: frozenset(),
    SnapshotState.BUILD_FAILED: frozenset(),
    SnapshotState.REMOVING: frozenset(),
}
"""What may come next; deleting is possible in every state."""

TIME_LIMIT_MINUTES: Mapping[SnapshotState, int] = {
    SnapshotState.PENDING: 15,
    SnapshotState.PULLING: 60,
    SnapshotState.BUILDING: 120,
    SnapshotState.SNAPSHOTTING: 60,
}
"""How long a passing state may last without a word before it becomes an error."""
