"""The HTTP proxy that a sandbox's requests go through."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

COLUMNS = ("outbound_proxy_url", "outbound_proxy_sealed")


def upgrade() -> None:
    """Apply."""
    for column in COLUMNS:
        op.add_column("sandboxes", sa.Column(column, sa.Text(), nullable=True))


def downgrade() -> None:
    """Take back."""
    for column in COLUMNS:
        op.drop_column("sandboxes", column)
