"""What pausing, resizing, archiving, forking and recovering sandboxes need to remember."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0002"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Apply."""
    op.add_column("sandboxes", sa.Column("parent_id", sa.Text(), nullable=True))
    op.add_column("sandboxes", sa.Column("archive_image", sa.Text(), nullable=True))
    op.add_column("sandboxes", sa.Column("recovered_at", TIME, nullable=True))
    op.add_column("sandboxes", sa.Column("auto_pause_minutes", sa.Integer(), nullable=False, server_default="0"))
    op.create_index("ix_sandboxes_parent_id", "sandboxes", ["parent_id"])
    op.add_column("jobs", sa.Column("image", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("source_id", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("resources", sa.JSON(), nullable=True))
    op.add_column("jobs", sa.Column("stay_stopped", sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    """Take back."""
    for column in ("image", "source_id", "resources", "stay_stopped"):
        op.drop_column("jobs", column)
    op.drop_index("ix_sandboxes_parent_id", "sandboxes")
    for column in ("parent_id", "archive_image", "recovered_at", "auto_pause_minutes"):
        op.drop_column("sandboxes", column)
