"""The sandbox state machine as tables. Imports nothing of ours; service, runner, reconciler, tests and documents read it.

Placeholder of the enums shared on the wire; the tables stand below them.
"""

from enum import StrEnum


class Observed(StrEnum):
    """What the runner last saw of a sandbox."""

    PENDING = "pending"  # a row, and nothing else yet
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
