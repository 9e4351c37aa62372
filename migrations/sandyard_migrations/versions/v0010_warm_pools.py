"""Warm pools, and the indexes that keep lists and timers quick with ten thousand sandboxes."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "warm_pools",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("snapshot", sa.Text(), nullable=False),
        sa.Column("snapshot_id", sa.Text(), nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("cpu", sa.Integer(), nullable=False),
        sa.Column("memory_gib", sa.Integer(), nullable=False),
        sa.Column("disk_gib", sa.Integer(), nullable=False),
        sa.Column("error_reason", sa.Text(), nullable=True),
        sa.Column("retry_at", TIME, nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name="fk_warm_pools_organization_id_organizations"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_warm_pools"),
    )
    op.create_index(
        "uq_warm_pools_organization_id_snapshot_id_region",
        "warm_pools",
        ["organization_id", "snapshot_id", "region"],
        unique=True,
    )
    op.add_column("sandboxes", sa.Column("warm_pool_id", sa.Text(), nullable=True))
    op.add_column("sandboxes", sa.Column("claimed_at", TIME, nullable=True))
    _partial_index("ix_sandboxes_warm_pool_id", "sandboxes", "warm_pool_id")
    _partial_index("ix_sandboxes_destroyed_at", "sandboxes", "destroyed_at")
    _partial_index("ix_sandboxes_auto_destroy_at", "sandboxes", "auto_destroy_at")
    _partial_index("ix_jobs_finished_at", "jobs", "finished_at")
    op.create_index("ix_sandboxes_organization_id_created_at", "sandboxes", ["organization_id", "created_at", "id"])


def downgrade() -> None:
    """Take back."""
    op.drop_index("ix_sandboxes_organization_id_created_at", "sandboxes")
    op.drop_index("ix_jobs_finished_at", "jobs")
    for name in ("ix_sandboxes_auto_destroy_at", "ix_sandboxes_destroyed_at", "ix_sandboxes_warm_pool_id"):
        op.drop_index(name, "sandboxes")
    op.drop_column("sandboxes", "claimed_at")
    op.drop_column("sandboxes", "warm_pool_id")
    op.drop_table("warm_pools")


def _partial_index(name: str, table: str, column: str) -> None:
    """Of the rows that have the column at all."""
    there = sa.text(f"{column} is not null")
    op.create_index(name, table, [column], sqlite_where=there, postgresql_where=there)
