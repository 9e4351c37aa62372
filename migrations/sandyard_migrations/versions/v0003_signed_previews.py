"""Tokens that open one port of a sandbox for a while."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "signed_previews",
        sa.Column("token_hash", sa.Text(), nullable=False),
        sa.Column("sandbox_id", sa.Text(), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["sandbox_id"],
            ["sandboxes.id"],
            name="fk_signed_previews_sandbox_id_sandboxes",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("token_hash", name="pk_signed_previews"),
    )
    op.create_index("ix_signed_previews_expires_at", "signed_previews", ["expires_at"])
    op.create_index("ix_signed_previews_sandbox_id", "signed_previews", ["sandbox_id"])


def downgrade() -> None:
    """Take back."""
    op.drop_table("signed_previews")
