"""Every table of the control plane, imported for its side effect on `Base.metadata`: what the migrations build."""

from sandyard_api.api_keys.models import ApiKey
from sandyard_api.bench.models import BenchState
from sandyard_api.database import Base
from sandyard_api.jobs.models import JobRow
from sandyard_api.organizations.models import Organization
from sandyard_api.previews.models import SignedPreview
from sandyard_api.registries.models import Registry
from sandyard_api.runners.models import Runner
from sandyard_api.sandboxes.models import BuildLogChunk, Sandbox, StateChange
from sandyard_api.sealing.models import SealCheck
from sandyard_api.secrets.models import Secret
from sandyard_api.sessions.models import Session, SessionCommand
from sandyard_api.snapshots.models import Snapshot, SnapshotLogChunk
from sandyard_api.ssh_access.models import SshAccess
from sandyard_api.users.models import User
from sandyard_api.volumes.models import Volume
from sandyard_api.warm_pools.models import WarmPool

METADATA = Base.metadata
TABLES = (
    ApiKey,
    BenchState,
    BuildLogChunk,
    JobRow,
    Organization,
    Registry,
    Runner,
    Sandbox,
    SealCheck,
    Secret,
    Session,
    SessionCommand,
    SignedPreview,
    Snapshot,
    SnapshotLogChunk,
    SshAccess,
    StateChange,
    User,
    Volume,
    WarmPool,
)
