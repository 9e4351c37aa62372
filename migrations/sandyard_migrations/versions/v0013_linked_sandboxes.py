"""Sandboxes that are linked to another one, and go with it."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("sandboxes", sa.Column("linked_sandbox_id", sa.Text(), nullable=True))
    there = sa.text("linked_sandbox_id is not null")
    op.create_index(
        "ix_sandboxes_linked_sandbox_id",
        "sandboxes",
        ["linked_sandbox_id"],
        sqlite_where=there,
        postgresql_where=there,
    )


def downgrade() -> None:
    """Take back."""
    op.drop_index("ix_sandboxes_linked_sandbox_id", "sandboxes")
    op.drop_column("sandboxes", "linked_sandbox_id")
