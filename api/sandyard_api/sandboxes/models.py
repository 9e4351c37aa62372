"""Tables of sandboxes, the causes of their changes and their build logs."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, Integer
from sqlalchemy.orm import Mapped, mapped_column

from sandyard_api.database import Base, partial_index
from sandyard_api.sandboxes.states import Desired, Observed

INHERITED = (
    *("organization_id", "region", "runner_id", "snapshot", "snapshot_id", "dockerfile", "context_hashes"),
    *("entrypoint", "user", "env", "labels", "public"),
    *(
        "network_block_all",
        "network_allow_list",
        "domain_allow_list",
        "secrets",
        "outbound_proxy_url",
        "outbound_proxy_sealed",
        "volumes",
        "cpu",
        "gpu",
        "memory_gib",
        "disk_gib",
        "auto_stop_minutes",
        "auto_pause_minutes",
    ),
    *("auto_archive_minutes", "auto_delete_minutes", "auto_destroy_at", "daemon_version"),
)
"""What a fork has from its parent."""
NUMBER = BigInteger().with_variant(Integer(), "sqlite")


class Sandbox(Base):
    """One sandbox: what was asked for, what is wanted and what was last seen of it."""

    __tablename__ = "sandboxes"
    __table_args__ = (
        partial_index(
            "uq_sandboxes_name_among_the_living", "organization_id", "name", unique=True, where="desired <> 'destroyed'"
        ),
        Index("ix_sandboxes_organization_id_last_activity_at", "organization_id", "last_activity_at", "id"),
        Index("ix_sandboxes_organization_id_created_at", "organization_id", "created_at", "id"),
        # All that the timers ask of a running sandbox, so that they need not read ten thousand rows to find none due.
        Index(
            "ix_sandboxes_observed_desired_idle",
            "observed",
            "desired",
            "last_activity_at",
            "auto_stop_minutes",
            "auto_pause_minutes",
        ),
        *(
            partial_index(f"ix_sandboxes_{column}", column, where=f"{column} is not null")
            for column in ("warm_pool_id", "destroyed_at", "auto_destroy_at", "linked_sandbox_id")
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str] = mapped_column(ForeignKey("organizations.id"))
    name: Mapped[str]
    region: Mapped[str]
    runner_id: Mapped[str | None]

    snapshot: Mapped[str | None]
    image: Mapped[str | None]
    dockerfile: Mapped[str | None]
    """The text a build was asked with; `image` is what came of it."""
    context_hashes: Mapped[list[str]]
    snapshot_id: Mapped[str | None]
    """The snapshot's row, which may be gone by now."""
    entrypoint: Mapped[list[str] | None]
    """What the snapshot runs instead of its image's own."""
    user: Mapped[str | None]
    env: Mapped[dict[str, str]]
    labels: Mapped[dict[str, str]]
    public: Mapped[bool]
    network_block_all: Mapped[bool]
    volumes: Mapped[list[dict[str, str]]]
    """What it mounts, each `{volumeId, mountPath, subpath?}`; the id is `host:/path` for a folder of the host."""
    network_allow_list: Mapped[str | None]
    """IPv4 networks, separated by commas; `None` is no list."""
    domain_allow_list: Mapped[str | None]
    secrets: Mapped[dict[str, str]] = mapped_column(default=dict)
    """Names of variables to the ids of secrets, which may be gone by now."""
    outbound_proxy_url: Mapped[str | None]
    """As it is shown: without credentials."""
    outbound_proxy_sealed: Mapped[str | None]
    """The whole URL."""
    cpu: Mapped[int]
    gpu: Mapped[int]
    memory_gib: Mapped[int]
    disk_gib: Mapped[int]

    observed: Mapped[Observed]
    desired: Mapped[Desired]
    progressed_at: Mapped[datetime]
    """Last change of state, or last word of a pull or build."""
    error_reason: Mapped[str | None]
    recoverable: Mapped[bool]
    daemon_version: Mapped[str | None]

    parent_id: Mapped[str | None] = mapped_column(index=True)
    """The sandbox that it is a fork of; its record may be gone."""
    linked_sandbox_id: Mapped[str | None]
    """The sandbox that it is a companion of, on the same runner, and goes with; its record may be gone."""
    archive_image: Mapped[str | None]
    """The image that keeps its files, or kept them when it was archived last."""
    recovered_at: Mapped[datetime | None]
    """When somebody last asked for a recovery."""

    warm_pool_id: Mapped[str | None]
    """The warm pool it waits in, or is being claimed from; until then nobody is shown it, and no timer acts on it."""
    claimed_at: Mapped[datetime | None]
    """When a user claimed it from its pool, by the machine's time; `None` for one that waits or never did."""

    auto_stop_minutes: Mapped[int]
    auto_pause_minutes: Mapped[int]
    auto_archive_minutes: Mapped[int]
    auto_delete_minutes: Mapped[int]
    auto_destroy_at: Mapped[datetime | None]

    preview_token_hash: Mapped[str] = mapped_column(unique=True)
    preview_token_sealed: Mapped[str]
    door_secret_sealed: Mapped[str]
    signing_key_sealed: Mapped[str | None]
    """What signs file URLs; `None` until somebody asks for it. It survives restarts."""

    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    last_activity_at: Mapped[datetime]
    destroyed_at: Mapped[datetime | None]

    @property
    def is_ephemeral(self) -> bool:
        """Stopping it deletes it."""
        return self.auto_delete_minutes == 0


class StateChange(Base):
    """One move of a sandbox's state and why."""

    __tablename__ = "state_changes"
    __table_args__ = (Index("ix_state_changes_sandbox_id_number", "sandbox_id", "number"),)

    number: Mapped[int] = mapped_column(NUMBER, primary_key=True, autoincrement=True)
    sandbox_id: Mapped[str] = mapped_column(ForeignKey("sandboxes.id", ondelete="CASCADE"))
    at: Mapped[datetime]
    observed: Mapped[Observed]
    desired: Mapped[Desired]
    shown: Mapped[str]
    """What clients saw from then on."""
    cause: Mapped[str]


class BuildLogChunk(Base):
    """A piece of what a pull or build said."""

    __tablename__ = "build_log_chunks"
    __table_args__ = (Index("ix_build_log_chunks_sandbox_id_number", "sandbox_id", "number"),)

    number: Mapped[int] = mapped_column(NUMBER, primary_key=True, autoincrement=True)
    sandbox_id: Mapped[str] = mapped_column(ForeignKey("sandboxes.id", ondelete="CASCADE"))
    at: Mapped[datetime]
    text: Mapped[str]
