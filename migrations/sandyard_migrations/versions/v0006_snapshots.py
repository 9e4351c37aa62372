"""Snapshots and their logs, registries, and what sandboxes know of the snapshot or build they are made from."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
WORD = sa.String(length=32)
NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Apply."""
    _snapshots()
    _snapshot_log_chunks()
    _registries()
    with op.batch_alter_table("sandboxes") as sandboxes:
        sandboxes.add_column(sa.Column("context_hashes", sa.JSON(), nullable=False, server_default="[]"))
        sandboxes.add_column(sa.Column("snapshot_id", sa.Text(), nullable=True))
        sandboxes.add_column(sa.Column("entrypoint", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Take back."""
    with op.batch_alter_table("sandboxes") as sandboxes:
        sandboxes.drop_column("entrypoint")
        sandboxes.drop_column("snapshot_id")
        sandboxes.drop_column("context_hashes")
    for table in ("registries", "snapshot_log_chunks", "snapshots"):
        op.drop_table(table)


def _snapshots() -> None:
    op.create_table(
        "snapshots",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("image_name", sa.Text(), nullable=True),
        sa.Column("dockerfile", sa.Text(), nullable=True),
        sa.Column("context_hashes", sa.JSON(), nullable=False),
        sa.Column("image", sa.Text(), nullable=True),
        sa.Column("entrypoint", sa.JSON(), nullable=True),
        sa.Column("image_entrypoint", sa.JSON(), nullable=True),
        sa.Column("source_sandbox_id", sa.Text(), nullable=True),
        sa.Column("cpu", sa.Integer(), nullable=False),
        sa.Column("memory_gib", sa.Integer(), nullable=False),
        sa.Column("disk_gib", sa.Integer(), nullable=False),
        sa.Column("size_gib", sa.Float(), nullable=True),
        sa.Column("state", WORD, nullable=False),
        sa.Column("error_reason", sa.Text(), nullable=True),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("runner_id", sa.Text(), nullable=True),
        sa.Column("lease", sa.Text(), nullable=True),
        sa.Column("lease_until", TIME, nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("progressed_at", TIME, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.Column("last_used_at", TIME, nullable=True),
        sa.Column("deactivated_at", TIME, nullable=True),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name="fk_snapshots_organization_id_organizations"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_snapshots"),
    )
    op.create_index("uq_snapshots_organization_id_name", "snapshots", ["organization_id", "name"], unique=True)
    general = sa.text("organization_id is null")
    op.create_index(
        "uq_snapshots_name_among_the_general",
        "snapshots",
        ["name"],
        unique=True,
        sqlite_where=general,
        postgresql_where=general,
    )
    op.create_index("ix_snapshots_state_created_at", "snapshots", ["state", "created_at"])


def _snapshot_log_chunks() -> None:
    op.create_table(
        "snapshot_log_chunks",
        sa.Column("number", NUMBER, autoincrement=True, nullable=False),
        sa.Column("snapshot_id", sa.Text(), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["snapshot_id"],
            ["snapshots.id"],
            name="fk_snapshot_log_chunks_snapshot_id_snapshots",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("number", name="pk_snapshot_log_chunks"),
    )
    op.create_index("ix_snapshot_log_chunks_snapshot_id_number", "snapshot_log_chunks", ["snapshot_id", "number"])


def _registries() -> None:
    op.create_table(
        "registries",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("username", sa.Text(), nullable=False),
        sa.Column("password_sealed", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name="fk_registries_organization_id_organizations"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_registries"),
    )
    op.create_index("ix_registries_organization_id", "registries", ["organization_id"])
