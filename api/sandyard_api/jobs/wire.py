"""Messages between the control plane, which serves them, and runners and proxies, which send and read them.

They only ever gain optional fields; unknown fields are ignored.

Paths, relative to the internal base URL; every request carries `Authorization: Bearer <internal token>`:

| method and path | body | answer |
|---|---|---|
| POST /internal/jobs/claim | `ClaimRequest` | `{"jobs": [Job], "image_jobs": [ImageJob]}`, waits up to `wait_seconds` |
| POST /internal/jobs/{id}/progress | `JobProgress` | 204, or 409 when the lease is void |
| POST /internal/jobs/{id}/finish | `JobResult` | 204, or 409 when the lease is void |
| POST /internal/image-jobs/{id}/progress | `ImageProgress` | 204, or 409 when the lease is void |
| POST /internal/image-jobs/{id}/finish | `ImageResult` | 204, or 409 when the lease is void |
| GET /internal/images | | `{"images": [str]}`, every built image that something may still be made from |
| GET /internal/volumes | | `{"volumes": [str]}`, the ids of every volume that is wanted |
| GET /internal/contexts/{organization_id}/{hash} | | the tar of a build context, 404 |
| POST /internal/observations | `{"observations": [Observation]}` | 204 |
| GET /internal/wanted/{runner_id} | | `{"sandboxes": [Wanted]}`, all that should exist on that runner |
| POST /internal/runners/{runner_id}/heartbeat | `Heartbeat` | 204 |
| POST /internal/sessions | `{"sessions": [SessionRecord], "commands": [CommandRecord]}` | 204 |
| POST /internal/build-logs/{sandbox or snapshot id} | text, appended | 204 |
| GET /internal/route/{sandbox id, name, preview token or signed preview's token} | | `Route`, 404 |
| POST /internal/keys/check | `{"key": str}` | `KeyGrant`, 401 |
| POST /internal/activity | `{"sandboxes": {sandbox_id: RFC 3339}}` | 204 |
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

import msgspec

from sandyard.concealing import Concealing
from sandyard_api.sandboxes.states import Desired, Observed

CHANNEL_JOBS = "jobs"
"""Hint: a job was written. Payload: the runner id."""
CHANNEL_ROUTES = "routes"
"""Hint: whatever was known of a sandbox's route is stale. Payload: the sandbox id; empty means every sandbox."""
CHANNEL_VOLUMES = "volumes"
"""Hint: a volume was deleted. Payload: its id."""
CHANNEL_KEYS = "keys"
"""Hint: a key was revoked. Payload: empty."""


BUILD_REPOSITORY = "sandyard/build"
"""Repository of images built from a Dockerfile; the tag is a hash of what they were built from."""
SNAPSHOT_REPOSITORY = "sandyard/snapshot"
"""Repository of images made from sandboxes for snapshots; the tag is the snapshot's id."""
DEFAULT_IMAGE_NAMES = frozenset({"daytonaio/sandbox", "docker.io/daytonaio/sandbox"})
"""Names of the vendor's default image, without a tag. The runtime's own default stands in for it."""


class JobKind(StrEnum):
    """What a runner is asked to do. Each is idempotent by sandbox id."""

    CREATE = "create"  # fetch the image, create, start
    START = "start"
    STOP = "stop"
    DESTROY = "destroy"
    PAUSE = "pause"
    RESUME = "resume"
    RESIZE = "resize"  # to `Job.resources`
    COMMIT = "commit"  # keep the files as `Job.image`; the sandbox goes on as it was
    ARCHIVE = "archive"  # keep the files as `Job.image`, then remove the sandbox
    RESTORE = "restore"  # create it again from `Job.image`, start
    FORK = "fork"  # commit `Job.source_id` as the spec's image, create from it, start
    NETWORK = "network"  # hold the spec's network rules and secrets from now on; the sandbox goes on as it was
    RECOVER = "recover"  # whatever is missing of image, sandbox and run is made again; `Job.stay_stopped` ends before


class Resources(msgspec.Struct, frozen=True):
    """How much of the machine a sandbox may use."""

    cpu: int
    """Cores."""
    memory_gib: int
    disk_gib: int


class RegistryLogin(Concealing, frozen=True):
    """What a registry asks for, for images whose reference begins with `url`."""

    concealed = frozenset({"password"})

    url: str
    """Host, port and path prefix, without a scheme."""
    username: str
    password: str


class ImageSource(msgspec.Struct, frozen=True):
    """How an image is to be had."""

    reference: str | None
    """What it is called; `None` is the runtime's default."""
    organization_id: str
    dockerfile: str | None = None
    """Build it from this when it is not there; `None` pulls it."""
    context_hashes: tuple[str, ...] = ()
    """Build contexts, each a tar that the control plane has."""
    logins: tuple[RegistryLogin, ...] = ()


class Mount(msgspec.Struct, frozen=True):
    """A folder that a sandbox shares with others: of a volume or, where the runner's setting allows it, of the host."""

    path: str
    """Where the sandbox sees it; absolute."""
    volume_id: str | None = None
    host_folder: str | None = None
    """Absolute path on the runner's machine, where `volume_id` is `None`."""
    subpath: str = ""
    """What of the folder is shown; empty is all of it."""


class SecretGrant(Concealing, frozen=True):
    """A secret that a sandbox may use. Its value never enters the sandbox."""

    concealed = frozenset({"value"})

    variable: str
    """Holds the placeholder inside."""
    placeholder: str
    value: str
    hosts: tuple[str, ...] = ()
    """Where the value may be sent: names, or `*.` and one. None: anywhere."""


class SandboxSpec(Concealing, frozen=True):
    """Everything a runner needs to know of one sandbox; the same for each job of it."""

    concealed = frozenset({"outbound_proxy_url"})

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
    env: Mapping[str, str] = msgspec.field(default_factory=dict)
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    region: str = "local"
    cpu: int = 1
    """Cores."""
    memory_gib: int = 1
    disk_gib: int = 3
    network_block_all: bool = False
    network_allow_list: tuple[str, ...] = ()
    """IPv4 networks that may be reached; together with the domains all that may, unless both are empty."""
    domain_allow_list: tuple[str, ...] = ()
    """Names, or `*.` and one, whose addresses may be reached."""
    secrets: tuple[SecretGrant, ...] = ()
    outbound_proxy_url: str | None = None
    """HTTP proxy through which its HTTP goes, with its credentials, which never enter the sandbox."""
    entrypoint: tuple[str, ...] | None = None
    """What to run instead of the image's own entrypoint."""
    source: ImageSource | None = None
    """How to get the image; only with a job that may have to."""
    owned_images: tuple[str, ...] = ()
    """Images that were made for this sandbox alone and go with it."""
    mounts: tuple[Mount, ...] = ()
    link: str | None = None
    """The sandbox in whose network of linked ones it is, maybe itself."""
    was_warm: bool = False
    """It was made before anybody asked for it: `organization_id` and `env` are told to its daemon at each start."""


class ClaimRequest(msgspec.Struct, frozen=True):
    """Ask for work."""

    runner_id: str
    limit: int = 4
    wait_seconds: float = 20.0
    """How long the answer may be held back when there is nothing to do; 0 answers at once."""


class Job(msgspec.Struct, frozen=True):
    """One piece of work, held under a lease until `lease_seconds` after the last progress."""

    id: str
    kind: JobKind
    lease: str
    lease_seconds: float
    spec: SandboxSpec
    force: bool = False
    """For `STOP`: kill at once."""
    image: str | None = None
    """For `COMMIT` and `ARCHIVE`: the image to make. For `RESTORE`: the one to create from."""
    source_id: str | None = None
    """For `FORK`: the sandbox whose files are taken."""
    resources: Resources | None = None
    """For `RESIZE`."""
    stay_stopped: bool = False
    """For `RECOVER`: do not start."""


class JobProgress(msgspec.Struct, frozen=True):
    """Extends the lease and, where `observed` is given, tells what the work has come to."""

    lease: str
    observed: Observed | None = None


class JobResult(msgspec.Struct, frozen=True):
    """The end of a job. Applied only while the lease holds."""

    lease: str
    ok: bool
    observed: Observed
    reason: str = ""
    """Why, in words for the user; required when not `ok`."""
    recoverable: bool = False
    daemon_version: str | None = None


class ImageJob(msgspec.Struct, frozen=True):
    """An image to be made ready for a snapshot, held like a `Job`."""

    id: str
    """The snapshot's."""
    lease: str
    lease_seconds: float
    source: ImageSource


class ImageStep(StrEnum):
    """How far an `ImageJob` has come."""

    PULLING = "pulling"
    BUILDING = "building"


class ImageProgress(msgspec.Struct, frozen=True):
    """Extends the lease and, where `step` is given, tells what the work has come to."""

    lease: str
    step: ImageStep | None = None


class ImageResult(msgspec.Struct, frozen=True):
    """The end of an `ImageJob`. Applied only while the lease holds."""

    lease: str
    ok: bool
    reason: str = ""
    """Why, in words for the user; required when not `ok`."""
    size_bytes: int | None = None
    entrypoint: tuple[str, ...] | None = None
    """The image's ENTRYPOINT and CMD as one command line."""


class Observation(msgspec.Struct, frozen=True):
    """Something a runner saw without having been asked, such as a container that died."""

    sandbox_id: str
    observed: Observed
    reason: str
    at: datetime
    is_note: bool = False
    """Only `reason` counts: it goes into the sandbox's history, and no state changes."""


class Wanted(msgspec.Struct, frozen=True):
    """One sandbox that the control plane believes is on a runner."""

    spec: SandboxSpec
    desired: Desired
    observed: Observed
    has_job: bool
    """A job is open for it: the reconciler leaves it alone."""


class Heartbeat(msgspec.Struct, frozen=True):
    """A runner is alive; says where it can be reached and what its runtime enforces."""

    url: str
    """Base URL of the runner's own API, `http://...` or `unix:/path`."""
    runtime: str
    capabilities: Mapping[str, object]
    """The table that `GET /_sandyard/capabilities` shows, see `sandyard_runner.wire.Capability`."""


class SessionRecord(msgspec.Struct, frozen=True):
    """A session as the daemon told it."""

    sandbox_id: str
    session_id: str
    created_at: datetime
    ended_at: datetime | None = None


class CommandRecord(msgspec.Struct, frozen=True):
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


class Route(msgspec.Struct, frozen=True):
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
    told_at: datetime | None = None
    """The control plane's time when it answered: what `signed_until` and signed URLs expire by."""
    signed_port: int | None = None
    """Where it was asked for by the token of a signed preview: the one port that the token opens."""
    signed_until: datetime | None = None
    """When that token expires."""
    signing_key: str = ""
    """What signed file URLs are checked with; empty while nobody asked for it, and then no signature holds."""
    name: str = ""
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)


class KeyGrant(msgspec.Struct, frozen=True):
    """What a valid API key stands for."""

    key_id: str
    organization_id: str
    user_id: str
    permissions: tuple[str, ...] = ()
    is_owner: bool = False
    """Whether it is of the organization that the installation began with."""
