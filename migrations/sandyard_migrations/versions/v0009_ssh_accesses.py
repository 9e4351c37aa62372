"""Tokens that let SSH clients into a sandbox for a while."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "ssh_accesses",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("token_hash", sa.Text(), nullable=False),
        sa.Column("sandbox_id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["sandbox_id"],
            ["sandboxes.id"],
            name="fk_ssh_accesses_sandbox_id_sandboxes",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_ssh_accesses"),
        sa.UniqueConstraint("token_hash", name="uq_ssh_accesses_token_hash"),
    )
    op.create_index("ix_ssh_accesses_sandbox_id", "ssh_accesses", ["sandbox_id"])


def downgrade() -> None:
    """Take back."""
    op.drop_table("ssh_accesses")
