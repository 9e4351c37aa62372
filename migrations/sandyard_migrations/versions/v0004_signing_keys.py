"""The sealed key that signs a sandbox's file URLs."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("sandboxes", sa.Column("signing_key_sealed", sa.Text(), nullable=True))


def downgrade() -> None:
    """Take back."""
    op.drop_column("sandboxes", "signing_key_sealed")
