"""Messages between the control plane, which serves them, and runners and proxies, which send and read them.

Frozen dataclasses of the standard library: importing them pulls in nothing. They only ever gain optional fields;
unknown fields are ignored.

Paths, relative to the internal base URL; every request carries `Authorization: Bearer <internal token>`:

| method and path | body | answer |
|---|---|---|
| POST /internal/jobs/claim | `ClaimRequest` | `{"jobs": [Job]}`, waits up to `wait_seconds` for one |
| POST /internal/jobs/{id}/progress | `JobProgress` | 204, or 409 when the lease is void |
| POST /internal/jobs/{id}/finish | `JobResult` | 204, or 409 when the lease is void |
| POST /internal/observations | `{"observations": [Observation]}` | 204 |
| GET /internal/wanted/{runner_id} | | `{"sandboxes": [Wanted]}`, all that should exist on that runner |
| POST /internal/runners/{runner_id}/heartbeat | `Heartbeat` | 204 |
| POST /internal/sessions | `{"sessions": [SessionRecord], "commands": [CommandRecord]}` | 204 |
| POST /internal/build-logs/{sandbox_id} | text, appended | 204 |
| GET /internal/route/{sandbox id, name or preview token} | | `Route`, 404 |
| POST /internal/keys/check | `{"key": str}` | `KeyGrant`, 401 |
| POST /internal/activity | `{"sandboxes": {sandbox_id: RFC 3339}}` | 204 |
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from sandyard_api.sandboxes.states import Desired, Observed

CHANNEL_JOBS = "jobs"
"""Hint: a job was written. Payload: the runner id."""
CHANNEL_ROUTES = "routes"
"""Hint: whatever was known of a sandbox's route is stale. Payload: the sandbox id."""
CHANNEL_KEYS = "keys"
"""Hint: a key was revoked. Payload: empty."""


class JobKind(StrEnum):
    """What a runner is asked to do. Each is idempotent by sandbox id."""

    CREATE = "create"  # fetch the image, create, start
    START = "start"
    STOP = "stop"
    DESTROY = "destroy"


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """Everything a runner needs to know of one sandbox; the same for each job of it."""

    sandbox_id: str
    organization_id: str
    name: str
    door_secret: str
    """What the daemon's door asks for; new at every start."""
    image: str | None = None
    """Image reference; `None` is the runtime's default snapshot."""
    snapshot: str | None = None
    user: str | None = None
    """OS user; `None` is the image's own."""
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    region: str = "local"
    cpu: int = 1
    """Cores."""
    memory_gib: int = 1
    disk_gib: int = 3
    network_block_all: bool = False


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """Ask for work."""

    runner_id: str
    limit: int = 4
    wait_seconds: float = 20.0
    """How long the answer may be held back when there is nothing to do; 0 answers at once."""


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of work, held under a lease until `lease_seconds` after the last progress."""

    id: str
    kind: JobKind
    lease: str
    lease_seconds: float
    spec: SandboxSpec
    force: bool = False
    """For `STOP`: kill at once."""


@dataclass(frozen=True, slots=True)
class JobProgress:
    """Extends the lease and, where `observed` is given, tells what the work has come to."""

    lease: str
    observed: Observed | None = None


@dataclass(frozen=True, slots=True)
class JobResult:
    """The end of a job. Applied only while the lease holds."""

    lease: str
    ok: bool
    observed: Observed
    reason: str = ""
    """Why, in words for the user; required when not `ok`."""
    recoverable: bool = False
    daemon_version: str | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """Something a runner saw without having been asked, such as a container that died."""

    sandbox_id: str
    observed: Observed
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Wanted:
    """One sandbox that the control plane believes is on a runner."""

    spec: SandboxSpec
    desired: Desired
    observed: Observed
    has_job: bool
    """A job is open for it: the reconciler leaves it alone."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A runner is alive; says where it can be reached and what its runtime enforces."""

    url: str
    """Base URL of the runner's own API, `http://...` or `unix:/path`."""
    runtime: str
    capabilities: Mapping[str, object]
    """The table that `GET /_sandyard/capabilities` shows, see `sandyard_runner.wire.Capability`."""


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A session as the daemon told it."""

    sandbox_id: str
    session_id: str
    created_at: datetime
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class CommandRecord:
    """A session command as the daemon told it. Sent when it starts and again when it ends."""

    sandbox_id: str
    session_id: str
    command_id: str
    command: str
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    exit_code: int | None = None
    log_size: int = 0
    """Payload bytes of both streams."""
    last_lines: str = ""
    """At the most 64 KiB from the end of the finished log, both streams in order, as base64 of the raw bytes."""


@dataclass(frozen=True, slots=True)
class Route:
    """How to reach one sandbox, and who may."""

    sandbox_id: str
    organization_id: str
    state: str
    """The state clients are shown, such as `started`."""
    door_secret: str
    preview_token: str
    public: bool
    runner_url: str | None
    """Base URL of the runner's own API (log leases, forwarding); `None` before a runner has it."""
    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KeyGrant:
    """What a valid API key stands for."""

    key_id: str
    organization_id: str
    user_id: str
    permissions: tuple[str, ...] = ()
    is_owner: bool = False
    """Whether it is of the organization that the installation began with."""
